"""Last step of a pack: measure its false accept rates and write them into its manifest.

Neither the detector nor the embedder of ``compact`` saw the pictures.  They are the held-out tenth
of every training archive (`data.held_out`, people from 16 years on) except LFW's, whose people
occur in the test pairs, and the pictures of the 1,468 people of LFW who occur in no test pair.  The
set ``humanfaces`` shows children without age labels: its rates are printed, but it sets no score.
Each set weighs the same, so a score means the same for many kinds of people.  If the rate of one
set at a knot still exceeds four times the nominal rate, the knot moves up until it does not: the
table errs on the safe side.  Intervals come from a bootstrap of people within each set.  In the
second table one picture of each pair is turned into a portrait like that of an identity card's
chip.

    python weights/training/calibrate.py weights/compact
    python weights/training/calibrate.py weights/mobilefacenet
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from data import data_root, person_of, photographs
from numpy.typing import NDArray

from facecore import FaceEngine
from facecore.evaluation.recognizability import without_section
from facecore.evaluation.vectors import IdPortraits, embed_all
from facecore.face.alignment import TEMPLATE, align
from facecore.face.detection import Face
from facecore.face.embedding import Embedder
from facecore.face.id_portrait import id_portrait
from facecore.matching.calibration import Calibration
from facecore.matching.intervals import draw_people, quantile_interval, wilson_interval
from facecore.models.calibration_file import calibration_lines
from facecore.models.manifest import read_manifest
from facecore.models.packs import load_pack
from facecore.models.session import create_session
from facecore.models.specs import MeasuredRate

DATASET = (
    "people from 16 years on: the tenth of 12 sets of aligned crops that compact was not trained "
    "on, and the pictures of LFW's people who occur in none of the 6,000 test pairs; each set "
    "weighs the same"
)
METHOD = (
    "quantiles of the mean of the sets' rates{crossed}; a knot at which one set passes more than "
    "four times the nominal rate moves up; 95 % intervals by bootstrap of people within each set"
)
CROSSED = ", one picture of each pair made an ID portrait by facecore.face.id_portrait"
COMMENT = "# low and high: 95 % interval of the false accept rate; fnmr: of genuine pairs, rejected"
ADULT = 16  # years
WORST = 4.0  # times the nominal rate, for any one set
CHILDREN = "humanfaces"  # a set of all ages, without labels
GRID = 100_000  # quantiles that represent a set
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Strangers:
    """Similarities (N, N) of one set: photographs, or ID portraits against photographs."""

    name: str
    similarity: NDArray[np.float32]
    person: NDArray[np.intp]  # number of each picture's person, (N,)
    pairs: NDArray[np.bool_]  # pairs of two people, each once
    same: NDArray[np.bool_] | None = None  # pairs of one person, if the set has any

    @property
    def people(self) -> int:
        return int(self.person.max()) + 1

    def rate(self, similarity: float) -> float:
        return float((self.similarity[self.pairs] >= similarity).mean())

    def resampled(self, similarity: float, seed: int) -> NDArray[np.float32]:
        """Return the rate in 200 draws of people; NaN for a draw without impostor pairs."""
        drawn = draw_people(self.people, 200, seed)[:, self.person].astype(np.float32)
        passing = (self.pairs & (self.similarity >= similarity)).astype(np.float32)
        count, every = (((drawn @ x) * drawn).sum(1) for x in (passing, self.pairs))
        return np.divide(count, every, out=np.full_like(count, np.nan), where=every > 0)


def both(
    name: str, photographs: Vectors, portraits: Vectors, who: NDArray[np.str_],
    apart: NDArray[np.bool_], same: NDArray[np.bool_] | None = None,
) -> tuple[Strangers, Strangers]:  # fmt: skip
    """Compare a set's photographs with each other, and its ID portraits with its photographs."""
    above = np.triu(np.ones_like(apart), 1)
    person = np.unique(who, return_inverse=True)[1]
    crossed = None if same is None else same | same.T
    return (
        Strangers(name, photographs @ photographs.T, person, apart & above, same),
        Strangers(name, portraits @ photographs.T, person, apart, crossed),
    )


def age(name: str) -> int:
    """Return the age in the name of a crop, in years; `ADULT` if the name has none."""
    archive, file = name.split("/", 1)
    if archive.startswith("utkface"):
        return int(file.split("_")[0])
    return int(file.rpartition("A")[2]) if archive == "allage" else ADULT


def small(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn a crop (128, 128, 3) into an ID portrait and align it again, (112, 112, 3)."""
    landmarks = (TEMPLATE + 8).astype(np.float32)
    portrait = id_portrait(crop, Face(np.array([8, 8, 120, 120], np.float32), landmarks, 1.0))
    eyes = landmarks[:2].astype(np.float64)
    across = eyes[1] - eyes[0]
    cos, sin = across / (across @ across) * 25  # the portrait's eyes are 25 pixels apart, level
    turned = (landmarks - eyes.mean(0)) @ np.array([[cos, sin], [-sin, cos]]).T
    turned += np.array([portrait.shape[1] / 2, 52])
    return align(portrait, turned)


def strangers(pack: str | Path, engine: FaceEngine) -> Iterator[tuple[Strangers, Strangers]]:
    """Yield every set of held-out people in the pack's vectors: photographs, and ID portraits."""
    from holdout import ONE_PERSON, Judge, held_out_sets  # imports torch; the tests run without

    loaded, judge = load_pack(pack), Judge()
    session = create_session(loaded.embedder, threads=1, name="embedder")
    embedder = Embedder(session, loaded.pack.embedder)

    def embed(faces: NDArray[np.uint8]) -> Vectors:
        return np.concatenate([embedder.embed(faces[i : i + 32]) for i in range(0, len(faces), 32)])

    for archive, crops, names in held_out_sets():
        if archive == "lfw_rest":
            continue
        old = np.array([age(name) >= ADULT for name in names])
        faces = np.ascontiguousarray(crops[old, 8:120, 8:120])
        who = np.array([person_of(name) for name in names[old]])
        teacher = judge(faces)
        # An archive can show a person twice under two names.
        apart = (who[:, None] != who[None]) & (teacher @ teacher.T < ONE_PERSON)
        portraits = np.stack([small(crop) for crop in crops[old]])
        yield both(archive, embed(faces), embed(portraits), who, apart)
    named = list(photographs(data_root(), calibration=True))
    paths = [path for _, path in named]
    photos = embed_all(engine, paths, "central")
    shown = embed_all(engine, IdPortraits(engine, paths, "central"), "largest")
    have = photos.found & shown.found
    who = np.array([name for name, _ in named])[have]
    apart = who[:, None] != who[None]
    yield both("lfw", photos.vectors[have], shown.vectors[have], who, apart, np.triu(~apart, 1))


def table(sets: list[Strangers], contract: str, crossed: str = "") -> Calibration:
    """Fit the table on all sets, each with the same weight."""
    grid = (np.arange(GRID) + 0.5) / GRID
    ordered = [np.sort(s.similarity[s.pairs]) for s in sets]
    pooled = np.concatenate([one[(grid * len(one)).astype(int)] for one in ordered])
    named = [(s, s.same) for s in sets if s.same is not None]
    genuine = np.concatenate([np.clip(s.similarity[same], -1, 1) for s, same in named])
    own = sum(len(np.unique(s.person[same.any(1)])) for s, same in named)
    made = Calibration.fit(
        genuine, pooled, dataset=DATASET, identities=sum(s.people for s in sets),
        genuine_identities=own, contract=contract,
    )  # fmt: skip
    knots = []
    for knot in made.knots:
        least = knot.similarity
        for one in ordered:
            allowed = int(WORST * knot.far * len(one))
            if knot.far <= 0.01 and allowed >= 10:
                least = max(least, float(one[-1 - allowed]) + 1e-6)
        place = round(least, 6)
        share = float(f"{(genuine < place).mean():.6g}")
        fnmr = MeasuredRate(share, *wilson_interval(share * own, own))
        knots.append(replace(knot, similarity=place, fnmr=fnmr))
    spread = []
    for knot in knots:
        draws = [one.resampled(knot.similarity, seed) for seed, one in enumerate(sets)]
        spread.append(quantile_interval(np.nanmean(draws, axis=0)))
    count = sum(int(s.pairs.sum()) for s in sets)
    made = replace(made, knots=tuple(knots), impostor=count)
    # `with_intervals` rounds these intervals like all others.
    rejected = [(knot.fnmr.low, knot.fnmr.high) for knot in knots if knot.fnmr]
    return made.with_intervals(spread, rejected, method=METHOD.format(crossed=crossed))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the pack's manifest")
    print("\n".join(calibrate(parser.parse_args().folder)))


def calibrate(folder: Path) -> list[str]:
    """Measure a pack's tables, put them into its manifest, and return them as printable lines."""
    manifest = folder / "pack.toml"
    # The library refuses tables that belong to another embedder, so remove these first.
    embedder = tomllib.loads(manifest.read_text("utf-8"))["embedder"]
    digest = embedder["sha256"]
    measured = (embedder.get(name, {}) for name in ("calibration", "recognizability"))
    if any(one.get("embedder", digest) != digest for one in measured):
        replace_tables(manifest, [], gate=False)
    # The models of a pulled pack lie in the cache, so pass its name instead of its folder.
    pack = folder if any(folder.glob("*.onnx")) else folder.name
    # A gate that the pack already has must not change the rates.
    engine = FaceEngine(pack, min_recognizability=0)

    plain, crossed = zip(*strangers(pack, engine), strict=True)
    contract = engine.contract_id
    made = table([one for one in plain if one.name != CHILDREN], contract)
    portrait = table([one for one in crossed if one.name != CHILDREN], contract, CROSSED)
    if not all(knot.measured for one in (made, portrait) for knot in one.knots):
        raise SystemExit("a pack's table must be measured down to its rarest rate")
    tables = [
        COMMENT,
        *calibration_lines("embedder.calibration", made.to_spec(digest)),
        "",
        *calibration_lines("embedder.id_portrait_calibration", portrait.to_spec(digest)),
    ]
    replace_tables(manifest, [f"  {line}".rstrip() for line in tables])
    lines = []
    for title, sets, of in (("photographs", plain, made), ("ID portraits", crossed, portrait)):
        high = [knot for knot in of.knots if knot.score >= 70]
        scores = ", ".join(f"{k.score:g} (cosine {k.similarity:.3f})" for k in high)
        lines.append(f"{title}: share of strangers at a score of {scores}")
        for one in sets:
            rates = "  ".join(f"{one.rate(knot.similarity):8.3%}" for knot in high)
            lines.append(f"  {one.name:<14}{len(one.similarity):>6} pictures  {rates}")
            if one.same is not None:
                genuine = one.similarity[one.same]
                missed = "  ".join(f"{(genuine < knot.similarity).mean():8.3%}" for knot in high)
                lines.append(f"  {'genuine, rejected':<31}{missed}")
    return lines


def replace_tables(manifest: Path, tables: list[str], gate: bool = True) -> None:
    """Replace the lines of both tables, or append them to the embedder's section.

    All other sections stay; without `gate`, the section of the recognisability is removed too.
    """
    lines = manifest.read_text(encoding="utf-8").splitlines()
    if not gate:
        lines = without_section(lines)
    first = lines.index("[embedder]") + 1
    # The next model's section, or the comment above it, begins in the first column.
    end = next((i for i in range(first, len(lines)) if lines[i][:1] in ("[", "#")), len(lines))
    places = (i for i in range(first, end) if lines[i].strip() == "[embedder.calibration]")
    start = next(places, end)
    if lines[start - 1].lstrip().startswith("#"):
        start -= 1  # the comment before the first table goes with them
    while not lines[start - 1]:
        start -= 1
    tables = ["", *tables] if tables else []
    rest = ["", *lines[end:]] if end < len(lines) else []
    partial = manifest.with_suffix(".new")
    partial.write_text("\n".join([*lines[:start], *tables, *rest]) + "\n", encoding="utf-8")
    read_manifest(partial)
    os.replace(partial, manifest)


if __name__ == "__main__":
    main()
