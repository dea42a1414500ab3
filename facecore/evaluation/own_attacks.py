"""Measure liveness on a folder of genuine pictures and attacks: ``facecore evaluate liveness``."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from facecore._utils.atomic_files import make_folder, write_whole
from facecore.engine import FaceEngine
from facecore.errors import FacecoreError, InvalidParameter
from facecore.evaluation.attacks import AttackErrors, attack_errors, auc, bpcer_at_apcer
from facecore.evaluation.report import Report, report_paths
from facecore.images.folders import pictures_below

__all__ = ["GENUINE", "OwnAttacks", "evaluate_liveness", "read_folder", "write_liveness_report"]

GENUINE = "genuine"


@dataclass(frozen=True, slots=True)
class OwnAttacks:
    """Errors on a folder of pictures.

    Attributes
    ----------
    errors : AttackErrors
        At the threshold of the pack.
    bpcer20 : AttackErrors
        At the highest threshold with an APCER of at most 5 % of every species.
    areas : dict of str to float
        Area under the ROC curve by species.
    unanswered : dict of str to int
        Error code -> number of pictures without an answer.
    scores : list of (str, str, float)
        Species, file, and attack score, NaN without an answer.
    """

    errors: AttackErrors
    bpcer20: AttackErrors
    areas: dict[str, float]
    unanswered: dict[str, int]
    scores: list[tuple[str, str, float]]

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each figure."""
        errors, at = self.errors, self.bpcer20.threshold
        found = [("threshold", f"{errors.threshold:g}"), ("BPCER", str(errors.bpcer))]
        found += [
            (f"APCER {name}", f"{rate}; area under the ROC {self.areas[name]:.3f}")
            for name, rate in errors.apcer.items()
        ]
        found += [
            ("worst species", errors.worst_species),
            ("BPCER20", f"{self.bpcer20.bpcer}, at the threshold {at:.1f}"),
            ("BPNRR", str(errors.bpnrr)),
        ]
        found += [(f"APNRR {name}", str(rate)) for name, rate in errors.apnrr.items()]
        if self.unanswered:
            codes = ", ".join(f"{code} {count}" for code, count in self.unanswered.items())
            found.append(("without a score", codes))
        return found

    def lines(self) -> list[str]:
        """Format as lines of text."""
        return [f"{name:19} {value}" for name, value in self.rows()]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, without the score of each picture, for JSON."""
        found = {name: asdict(getattr(self, name)) for name in ("errors", "bpcer20")}
        if math.isinf(found["bpcer20"]["threshold"]):
            found["bpcer20"]["threshold"] = None
        return {**found, "areas": self.areas, "unanswered": self.unanswered}


def read_folder(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield ``(species, picture)`` of the pictures in ``genuine/`` and ``attack-NAME/``.

    The species of genuine pictures is "genuine"; that of attacks is NAME.

    Raises
    ------
    InvalidParameter
        The folder cannot be read, or holds ``attack-genuine``: its attacks would count as genuine
        pictures.
    """
    try:
        parts = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise InvalidParameter(f"{folder} cannot be read: {error.strerror or error}") from error
    for part in parts:
        species = part.name.removeprefix("attack-")
        if part.name != GENUINE and species == part.name:
            continue
        if part.name != GENUINE and species == GENUINE:
            raise InvalidParameter(
                f"{part} names an attack {GENUINE!r}", "rename the folder after the attack"
            )
        for path in pictures_below(part):
            if path.exists():  # a link whose picture is gone is no presentation
                yield species, path


def evaluate_liveness(engine: FaceEngine, folder: Path) -> OwnAttacks:
    """Measure the errors of a pack's liveness model on your pictures.

    Parameters
    ----------
    engine : FaceEngine
    folder : Path
        Holds ``genuine/`` and one folder ``attack-NAME/`` for each species of attack.

    Raises
    ------
    InvalidParameter
        There are no genuine pictures or no attacks, a species is named "genuine", no picture of a
        species gave an answer, or the pack has no liveness model that runs.
    """
    pictures = list(read_folder(folder))
    if {species == GENUINE for species, _ in pictures} != {True, False}:
        raise InvalidParameter(
            f"{folder} must hold pictures in genuine/ and in attack-NAME/",
            "make one folder per attack species, such as attack-print and attack-tablet",
        )
    model = engine.pack.liveness
    if model is None or not model.is_runnable:
        raise InvalidParameter(
            f"the pack {engine.pack.name} has no liveness model that runs",
            'use a pack that has one, such as "compact"',
        )
    codes: Counter[str] = Counter()
    scores = []
    for species, path in pictures:
        try:
            score = engine.liveness(path).attack_score
        except FacecoreError as error:
            codes[error.code] += 1
            score = math.nan
        scores.append((species, path.relative_to(folder).as_posix(), score))
    live = [score for species, _, score in scores if species == GENUINE]
    attacks = [(species, score) for species, _, score in scores if species != GENUINE]
    kinds, values = [kind for kind, _ in attacks], [score for _, score in attacks]
    errors = attack_errors(values, kinds, live, model.threshold)
    heard = [score for score in live if not math.isnan(score)]
    areas = {
        name: auc([s for k, s in attacks if k == name and not math.isnan(s)], heard)
        for name in errors.apcer
    }
    return OwnAttacks(errors, bpcer_at_apcer(values, kinds, live, 0.05), areas, dict(codes), scores)


def write_liveness_report(result: OwnAttacks, engine: FaceEngine, out: Path) -> Report:
    """Write the result as an HTML page, and as JSON with the score of every picture.

    Parameters
    ----------
    result : OwnAttacks
    engine : FaceEngine
    out : Path
        An .html file or a folder.
    """
    paths, model = report_paths(out), engine.pack.liveness
    make_folder(paths.html.parent)
    origin = {"pack": f"{engine.pack.name} {engine.pack.manifest.version}"}
    if model is not None:
        origin["liveness model"] = f"SHA-256 {model.sha256}"
    scores = [[kind, name, None if math.isnan(s) else s] for kind, name, s in result.scores]
    facts = {"format": 1, **origin, "result": result.as_dict(), "scores": scores}
    cells = [*result.rows(), *origin.items()]
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in cells)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Liveness</title>'
        "<style>body{font:16px sans-serif;margin:2em}th{text-align:left;padding-right:1em}</style>"
        f"<h1>Errors of presentation attack detection</h1><table>{rows}</table>"
        "<p>Terms follow ISO/IEC 30107-3. Intervals are 95 %, for independent pictures. This is "
        "not a conformance test.</p></html>"
    )
    content = json.dumps(facts, indent=1, allow_nan=False)
    write_whole(paths.json, content.encode("utf-8", "backslashreplace"))
    write_whole(paths.html, page.encode("utf-8", "backslashreplace"))
    return paths
