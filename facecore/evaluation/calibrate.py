"""Measure a calibration on pictures of people, for a pack or for a user's population."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore._version import __version__
from facecore.engine import FaceChoice, FaceEngine
from facecore.errors import InvalidParameter
from facecore.evaluation.vectors import Embedded, IdPortraits, embed_all
from facecore.images.folders import pictures_of_people
from facecore.matching.calibration import Calibration
from facecore.matching.intervals import bootstrap_rates
from facecore.models import registry
from facecore.models.calibration_file import CalibrationFile, write_calibration

__all__ = [
    "Doubt",
    "Measurement",
    "Skipped",
    "default_file",
    "find_pictures",
    "measure",
    "save",
]

# 18 million comparisons; more pictures would need gigabytes and add no precision.
MAX_PICTURES = 6000

_METHOD = (
    "quantiles of all impostor pairs{crossed}; 95 % intervals by bootstrap of people, "
    "and no narrower than Wilson's over pairs of people"
)
_CROSSED = ", one picture of each made an ID portrait by facecore.face.id_portrait"

# Expected number of impostor pairs at least as similar as the doubtful ones.
_DOUBTFUL = 0.01

_JUST_BELOW_IDENTITY = 1 - 1e-5


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that was not used, with the code and message of the error."""

    path: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """Two pictures of supposedly different people that look like the same person."""

    a: str
    b: str
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Result of `measure`.

    Attributes
    ----------
    calibration : Calibration
        For photographs against photographs.
    id_portrait_calibration : Calibration or None
        For ID portraits against photographs, if requested.
    genuine, impostor : ndarray, shape (M,) and (N,), float32
        Similarities of photographs, for plots.
    pictures, identities : int
        Numbers of pictures and people used.
    skipped : tuple of Skipped
        Pictures without a face, damaged pictures, and other files.
    left_out : int
        Number of pictures beyond `MAX_PICTURES`.
    loose : int
        Number of unused pictures outside any person's folder.
    doubtful : tuple of Doubt
        Pairs for manual review, most similar first: one person in two folders, or twins.  They
        are included in the measurement.
    """

    calibration: Calibration
    id_portrait_calibration: Calibration | None
    genuine: NDArray[np.float32] = field(repr=False)
    impostor: NDArray[np.float32] = field(repr=False)
    pictures: int
    identities: int
    skipped: tuple[Skipped, ...]
    left_out: int
    loose: int
    doubtful: tuple[Doubt, ...]

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON-serialisable values."""
        portrait = self.id_portrait_calibration
        return {
            "pictures": self.pictures,
            "identities": self.identities,
            "left_out": self.left_out,
            "loose": self.loose,
            "calibration": asdict(self.calibration.to_spec()),
            "id_portrait_calibration": portrait and asdict(portrait.to_spec()),
            "skipped": [asdict(one) for one in self.skipped],
            "doubtful": [asdict(one) for one in self.doubtful],
        }

    def lines(self) -> list[str]:
        """Format as lines of text."""
        lines = [f"{self.pictures:,} pictures of {self.identities:,} people"]
        if self.left_out:
            lines.append(f"{self.left_out:,} more were left out: {MAX_PICTURES:,} are enough")
        if self.loose:
            lines.append(f"{self.loose:,} in no person's folder were ignored")
        lines += _table("photographs", self.calibration)
        if self.id_portrait_calibration is not None:
            lines += _table("ID portraits against photographs", self.id_portrait_calibration)
        if self.skipped:
            lines.append(f"{len(self.skipped)} skipped:")
            lines += [f"  {one.path}: {one.code}: {one.message}" for one in self.skipped]
        if self.doubtful:
            lines.append("check these pairs: is one person in two folders?")
            lines += [f"  {d.similarity:.3f}  {d.a}  {d.b}" for d in self.doubtful[:20]]
            if len(self.doubtful) > 20:
                lines.append(f"  and {len(self.doubtful) - 20} more")
        return lines


def _table(title: str, made: Calibration) -> list[str]:
    lines = [
        f"{title}: {made.impostor:,} impostor and {made.genuine:,} genuine comparisons",
        "  score       FAR   95 % interval        cosine   genuine rejected",
    ]
    for knot in made.knots:
        rejected = ""
        if (rate := knot.fnmr) is not None:
            rejected = f"{rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%})"
        interval = f"{knot.low:.3%} to {knot.high:.3%}"
        note = "" if knot.measured else "  extrapolated"
        lines.append(
            f"  {knot.score:5g} {knot.far:>9.2%}   {interval:<19}  {knot.similarity:.4f}   "
            f"{rejected}{note}"
        )
    return lines


def find_pictures(folder: Path) -> list[tuple[str | None, Path]]:
    """List (person, file) of a folder with one folder per person; see `pictures_of_people`.

    Raises
    ------
    InvalidParameter
        `folder` is not a folder, cannot be read, or holds no folder with a file.
    """
    found = pictures_of_people(folder)
    if all(person is None for person, _ in found):
        raise InvalidParameter(f"{folder} holds no folder with a file", "make a folder per person")
    return found


def measure(
    engine: FaceEngine,
    pictures: Sequence[tuple[str | None, Path]],
    *,
    dataset: str,
    face: FaceChoice = "largest",
    id_portraits: bool = True,
    progress: bool = False,
) -> Measurement:
    """Fit the calibrations of an engine's pack on all pairs of pictures of people.

    Parameters
    ----------
    engine : FaceEngine
        Its detector and embedder are measured; its calibration is not used.
    pictures : sequence of (str or None, Path)
        Person and file; pictures with person None are ignored.
    dataset : str
        Name of the data set.
    face : {"largest", "central"}
        Face to use in each picture.
    id_portraits : bool, default True
        Also fit the calibration for ID portraits: each picture is converted to an ID portrait
        (`facecore.face.id_portrait`), detected and embedded like any other image, and compared
        with all photographs except its source.
    progress : bool
        Show progress bars on standard error.

    Raises
    ------
    InvalidParameter
        Too few people or pictures (see `Calibration.fit`), or the same picture in the folders
        of two people.
    """
    named = [(person, path) for person, path in pictures if person is not None]
    chosen = _choose(named)
    paths = [path for _, path in chosen]
    embedded = embed_all(engine, paths, face, progress)
    skipped = _skipped(embedded, paths)
    found = np.flatnonzero(embedded.found).tolist()
    rows = sorted(found, key=lambda row: chosen[row][0])  # by person, for `_bootstrapped`
    names = [chosen[row][0] for row in rows]
    people = np.unique(names, return_inverse=True)[1]
    identities = len(set(names))
    fit: dict[str, Any] = {
        "dataset": dataset,
        "identities": identities,
        "genuine_identities": int((np.bincount(people) > 1).sum()),
        "contract": engine.contract_id,
    }
    photographs = embedded.vectors[rows]
    similarity = photographs @ photographs.T
    same = people[:, None] == people[None]
    above = np.triu(np.ones_like(same), 1)
    genuine = np.clip(similarity[same & above], -1, 1)
    impostor = similarity[~same & above]
    _refuse_one_picture_twice(similarity, same, [paths[row] for row in rows])
    made = _fit(genuine, impostor, skipped, fit)
    made = _bootstrapped(made, similarity, people, ~np.eye(len(people), dtype=bool), "")
    doubtful = _doubtful(engine, made, similarity, ~same & above, [paths[row] for row in rows])

    portrait = None
    if id_portraits:
        shown = [paths[row] for row in rows]
        small = embed_all(engine, IdPortraits(engine, shown, face), "largest", progress)
        skipped += _skipped(small, shown, "as an ID portrait: ")
        have = np.flatnonzero(small.found)
        crossed = small.vectors[have] @ photographs.T
        other = have[:, None] != np.arange(len(rows))[None]
        alike = people[have][:, None] == people[None]
        genuine_crossed = np.clip(crossed[alike & other], -1, 1)
        portrait = _fit(genuine_crossed, crossed[~alike], skipped, fit)
        # `part` excludes rows without a portrait.
        whole = np.zeros_like(similarity)
        whole[have] = crossed
        part = np.zeros_like(same)
        part[have] = other
        portrait = _bootstrapped(portrait, whole, people, part, _CROSSED)
    return Measurement(
        made,
        portrait,
        genuine,
        impostor,
        len(rows),
        identities,
        tuple(skipped),
        len(named) - len(chosen),
        len(pictures) - len(named),
        doubtful,
    )


def default_file(engine: FaceEngine) -> Path:
    """Default path of a user's calibration of a pack.

    The file of a pack known by name is in the cache of pulled packs, because an installation is
    never modified.  The file of a pack in a user's folder is in that folder's parent.
    """
    pack = engine.pack
    name = f"{pack.name}.calibration.toml"
    known = (registry.shipped_root(), registry.cache_root())
    return (registry.cache_root() if pack.folder.parent in known else pack.folder.parent) / name


def save(path: Path, engine: FaceEngine, measurement: Measurement) -> None:
    """Write a measurement's calibrations to a file for ``FaceEngine(calibration=...)``.

    Raises
    ------
    InvalidParameter
        The file cannot be written.
    """
    portrait = measurement.id_portrait_calibration
    content = CalibrationFile(
        1,
        __version__,
        engine.pack.name,
        engine.contract_id,
        measurement.calibration.to_spec(),
        None if portrait is None else portrait.to_spec(),
    )
    write_calibration(path, content)


def _choose(pictures: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Select up to `MAX_PICTURES` pictures: the first of every person, then the second, ..."""
    if len(pictures) <= MAX_PICTURES:
        return list(pictures)
    albums: dict[str, list[tuple[str, Path]]] = {}
    for picture in pictures:
        albums.setdefault(picture[0], []).append(picture)
    order = np.random.default_rng(0).permutation(len(albums))
    shuffled = [list(albums.values())[i] for i in order]
    rounds = zip_longest(*shuffled)
    return [picture for one in rounds for picture in one if picture is not None][:MAX_PICTURES]


def _skipped(embedded: Embedded, paths: Sequence[Path], prefix: str = "") -> list[Skipped]:
    return [
        Skipped(os.fspath(paths[index]), error.code, prefix + error.message)
        for index, error in embedded.errors.items()
    ]


def _refuse_one_picture_twice(
    similarity: NDArray[np.float32], same: NDArray[np.bool_], paths: Sequence[Path]
) -> None:
    twice = np.argwhere((similarity >= _JUST_BELOW_IDENTITY) & ~same)
    if len(twice):
        a, b = (paths[i] for i in twice[0])
        raise InvalidParameter(
            f"{a} and {b} are the same picture in two people's folders", "remove the wrong one"
        )


def _doubtful(
    engine: FaceEngine,
    made: Calibration,
    similarity: NDArray[np.float32],
    compared: NDArray[np.bool_],
    paths: Sequence[Path],
) -> tuple[Doubt, ...]:
    """Find impostor pairs that the pack's calibration expects in under 1 of 100 sets of this size.

    A pack without a calibration uses `made`, the one just measured.
    """
    own = engine.pack.embedder.calibration
    table = made if own is None else Calibration.from_spec(own)
    far = max(_DOUBTFUL / np.count_nonzero(compared), float(table.far(100.0)))
    limit = float(table.similarity(table.threshold(far)))
    pairs = np.argwhere(compared & (similarity >= limit))
    doubts = [
        Doubt(os.fspath(paths[i]), os.fspath(paths[j]), round(float(similarity[i, j]), 6))
        for i, j in pairs
    ]
    return tuple(sorted(doubts, key=lambda doubt: -doubt.similarity))


def _fit(
    genuine: NDArray[np.float32],
    impostor: NDArray[np.float32],
    skipped: Sequence[Skipped],
    fit: dict[str, Any],
) -> Calibration:
    try:
        return Calibration.fit(genuine, impostor, **fit)
    except InvalidParameter as error:
        if not skipped:
            raise
        first = skipped[0]
        raise InvalidParameter(
            f"{error.message}; {len(skipped):,} files were skipped, the first: "
            f"{first.path}: {first.message}",
            error.hint,
        ) from error


def _bootstrapped(
    made: Calibration,
    similarity: NDArray[np.float32],
    people: NDArray[np.integer],
    compared: NDArray[np.bool_],
    crossed: str,
) -> Calibration:
    """Add bootstrap intervals over people to a calibration; `people` must be sorted."""
    starts = np.unique(people, return_index=True)[1]

    def by_people(counts: NDArray[np.bool_]) -> NDArray[np.float32]:
        rows = np.add.reduceat(counts.astype(np.float32), starts, axis=0)
        return np.asarray(np.add.reduceat(rows, starts, axis=1), np.float32)

    def impostors(counts: NDArray[np.float32]) -> NDArray[np.float32]:
        between = counts.copy()
        np.fill_diagonal(between, 0)
        return between

    total = by_people(compared)
    far, fnmr = [], []
    for knot in made.knots:
        passing = by_people(compared & (similarity >= knot.similarity))
        far.append(bootstrap_rates(impostors(passing), impostors(total)))
        own = np.diag(total)
        fnmr.append(bootstrap_rates(own - np.diag(passing), own))
    return made.with_intervals(
        far, fnmr if made.genuine else None, method=_METHOD.format(crossed=crossed)
    )
