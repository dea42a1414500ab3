"""Two-way and three-way comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from facecore.errors import NotCalibrated
from facecore.face.detection import Face
from facecore.face.recognizability import allowance
from facecore.matching.calibration import Calibration
from facecore.matching.similarity import cosine

__all__ = ["Comparison", "CrossComparison", "Template", "compare", "cross_compare"]


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A face and its embedding vector.

    Attributes
    ----------
    face : Face
    vector : ndarray, shape (D,), float32
        Of unit length.
    others : int
        Number of other faces in the picture.
    recognizability : float
        0..100; derived from the crop alone if the pack has no network for it.
    """

    face: Face
    vector: NDArray[np.float32]
    others: int = 0
    recognizability: float = 100.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of comparing the faces of two images.

    Attributes
    ----------
    score : float
        Score of ``similarity - allowance`` on the calibrated scale, 0..100: 1 %, 0.1 % and
        0.01 % of pairs of different people reach 70, 80 and 90.
    similarity : float
        Cosine, -1..1.
    passed : bool
        ``score >= threshold``.
    threshold : float
        0..100.
    far_thresholds : mapping of float to float
        Threshold for each false accept rate.
    faces : tuple of Face
        The compared face of each image.
    others : tuple of int
        Number of other faces in each image; see `FaceSample.others`.
    allowance : float
        Cosine subtracted from the similarity of two faces that are both hard to read; 0 if
        either is clear.  See `facecore.face.recognizability.allowance`.

    Raises
    ------
    NotCalibrated
        Raised by `score`, `passed`, `threshold` and `far_thresholds` if the pack has no
        calibration; `similarity`, `faces` and `others` are always available.
    """

    score: float
    similarity: float
    passed: bool
    threshold: float
    far_thresholds: Mapping[float, float]
    faces: tuple[Face, Face]
    others: tuple[int, int] = (0, 0)
    allowance: float = 0.0


class _Unscored(Comparison):
    """A comparison by a pack without a calibration."""

    __slots__ = ("_calibration",)
    _calibration: Calibration

    def __init__(
        self,
        similarity: float,
        faces: tuple[Face, Face],
        others: tuple[int, int],
        calibration: Calibration,
    ) -> None:
        for name, value in (
            ("similarity", similarity),
            ("faces", faces),
            ("others", others),
            ("allowance", 0.0),
            ("_calibration", calibration),
        ):
            object.__setattr__(self, name, value)

    def _refuse(self) -> NoReturn:
        try:
            self._calibration.score(self.similarity)
        except NotCalibrated as error:
            raise NotCalibrated(
                f"the similarity is {self.similarity:.4f}, but {error.message}", error.hint
            ) from None
        raise AssertionError("the calibration has a table")

    score = passed = threshold = far_thresholds = property(_refuse)

    def __repr__(self) -> str:
        return f"Comparison(similarity={self.similarity!r}, not calibrated)"

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[type[_Unscored], tuple[object, ...]]:
        return _Unscored, (self.similarity, self.faces, self.others, self._calibration)


@dataclass(frozen=True, slots=True)
class CrossComparison:
    """Three images compared in a chain (A-B, B-C) or a loop (also C-A).

    Attributes
    ----------
    ab, bc : Comparison
    ca : Comparison or None
        None in a chain.
    """

    ab: Comparison
    bc: Comparison
    ca: Comparison | None

    @property
    def passed(self) -> bool:
        """Whether all comparisons passed."""
        return all(pair.passed for pair in (self.ab, self.bc, self.ca) if pair is not None)


def compare(
    a: Template,
    b: Template,
    calibration: Calibration,
    threshold: float | None,
    largest: float = 0.0,
) -> Comparison:
    """Compare two templates of the same contract; swapping them swaps only the faces.

    `threshold` may be None only if the calibration is missing.  `largest` is the
    parameter of `facecore.face.recognizability.allowance`.
    """
    similarity = float(cosine(a.vector, b.vector))
    if calibration.is_missing or threshold is None:
        return _Unscored(similarity, (a.face, b.face), (a.others, b.others), calibration)
    less = float(allowance(max(a.recognizability, b.recognizability), largest)) if largest else 0.0
    score = float(calibration.score(max(-1.0, similarity - less)))
    return Comparison(
        score=score,
        similarity=similarity,
        passed=score >= threshold,
        threshold=threshold,
        far_thresholds=calibration.far_thresholds,
        faces=(a.face, b.face),
        others=(a.others, b.others),
        allowance=less,
    )


def cross_compare(
    a: Template,
    b: Template,
    c: Template,
    calibration: Calibration,
    threshold: float | None,
    mode: Literal["chain", "loop"] = "chain",
    largest: float = 0.0,
) -> CrossComparison:
    """Compare A with B, B with C and, in loop mode, C with A."""
    return CrossComparison(
        compare(a, b, calibration, threshold, largest),
        compare(b, c, calibration, threshold, largest),
        compare(c, a, calibration, threshold, largest) if mode == "loop" else None,
    )
