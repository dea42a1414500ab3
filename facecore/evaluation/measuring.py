"""Steps shared by all protocols between reading pictures and reporting results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.engine import FaceChoice, FaceEngine
from facecore.errors import InvalidParameter
from facecore.evaluation.all_pairs import AllPairs, compare_all
from facecore.evaluation.identification import search_all
from facecore.evaluation.intervals import Rate, rate
from facecore.evaluation.results import GroupRates, Identification, OperatingPoint
from facecore.evaluation.vectors import Embedded, embed_all

__all__ = [
    "Clock",
    "by_group",
    "compare_pictures",
    "embed_some",
    "identify",
    "operating_points",
    "operating_thresholds",
]


def embed_some(
    engine: FaceEngine, paths: Sequence[Path], face: FaceChoice, progress: bool
) -> Embedded:
    """Embed pictures with `facecore.evaluation.vectors.embed_all`; raise if all of them fail."""
    embedded = embed_all(engine, paths, face, progress)
    if not embedded.found.any():
        codes = ", ".join(f"{code} {count:,}" for code, count in embedded.counts().items())
        raise InvalidParameter(f"none of the {len(paths)} images gave a vector ({codes})")
    return embedded


class Clock:
    """Measures the wall time of the parts of a run, in `seconds`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End the part `name`, which began at the previous lap."""
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def operating_scores(engine: FaceEngine) -> list[float]:
    """List the documented threshold scores and the engine's threshold."""
    return sorted({*engine.calibration.far_thresholds.values(), engine.threshold})


def operating_thresholds(engine: FaceEngine) -> NDArray[np.float64]:
    """Convert `operating_scores` to similarities."""
    return engine.calibration.similarity(operating_scores(engine))


def operating_points(
    engine: FaceEngine, fmr: Sequence[Rate] | None, fnmr: Sequence[Rate] | None
) -> tuple[OperatingPoint, ...]:
    """Combine rates, one per operating threshold, with the nominal rates of the calibration."""
    calibration, scores = engine.calibration, operating_scores(engine)
    return tuple(
        OperatingPoint(
            score=score,
            similarity=float(calibration.similarity(score)),
            nominal_fmr=float(calibration.far(score)),
            extrapolated=bool(calibration.is_extrapolated(score)),
            fmr=fmr[k] if fmr else None,
            fnmr=fnmr[k] if fnmr else None,
        )
        for k, score in enumerate(scores)
    )


def compare_pictures(
    engine: FaceEngine, vectors: NDArray[np.float32], people: ArrayLike
) -> AllPairs:
    """Compare all pairs of pictures at `operating_thresholds`."""
    return compare_all(vectors, people, operating_thresholds(engine))


def by_group(
    engine: FaceEngine,
    vectors: NDArray[np.float32],
    found: NDArray[np.bool_],
    people: NDArray[np.integer],
    names: Sequence[str],
    labels: Mapping[str, Mapping[str, str]],
) -> tuple[GroupRates, ...]:
    """Compute rates within each group; both pictures of a pair belong to it."""
    measured = []
    for attribute, group_of in labels.items():
        own = np.array([group_of.get(name, "") for name in names])
        for group in np.unique(own[(own != "") & found]):
            chosen = (own == group) & found
            points: tuple[OperatingPoint, ...] = ()
            if chosen.sum() > 1:
                compared = compare_pictures(engine, vectors[chosen], people[chosen])
                points = operating_points(engine, compared.fmr(), compared.fnmr())
            count = len(np.unique(people[chosen]))
            measured.append(GroupRates(attribute, str(group), int(chosen.sum()), count, points))
    return tuple(measured)


def identify(
    engine: FaceEngine, vectors: NDArray[np.float32], people: NDArray[np.integer]
) -> Identification | None:
    """Enrol the first picture of each person with two or more; search with all other pictures."""
    _, first, person, count = np.unique(
        people, return_index=True, return_inverse=True, return_counts=True
    )
    enrolled = first[count > 1]
    if not len(enrolled):
        return None
    probes = np.setdiff1d(np.arange(len(people)), enrolled)
    searches = search_all(vectors[probes], person[probes], vectors[enrolled], person[enrolled])
    threshold = float(engine.calibration.similarity(engine.threshold))
    mated = int((searches.rank > 0).sum())
    return Identification(
        gallery=len(enrolled),
        mated=mated,
        non_mated=len(probes) - mated,
        rank_one=rate(searches.rank[searches.rank > 0] == 1, person[probes][searches.rank > 0]),
        cmc=tuple(searches.cmc(20).tolist()),
        fnir=searches.fnir(threshold, rank=1),
        fpir=searches.fpir(threshold) if mated < len(probes) else None,
    )
