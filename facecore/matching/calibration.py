"""Cosine to score to false accept rate, and back, through measured knots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter
from facecore.models.specs import Knot

if TYPE_CHECKING:
    from facecore.models.specs import CalibrationSpec

__all__ = ["FAR_LEVELS", "SCORE_AT", "Calibration", "wilson_interval"]

# What a score means, for every pack: the false accept rates that a user sets thresholds
# by are ten points apart, and below them a stranger's median score is 20.
SCORE_AT: dict[float, float] = {0.5: 20.0, 0.1: 50.0, 0.01: 70.0, 0.001: 80.0, 0.0001: 90.0}

# The rates of the documented threshold table.
FAR_LEVELS = (0.01, 0.001, 0.0001)

DEFAULT_FAR = 0.001


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Parameters
    ----------
    count, total : int
        ``0 <= count <= total``, ``total > 0``.
    """
    z = 1.959963984540054
    p = count / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    # The bounds hold the proportion itself, also where rounding says otherwise.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


@dataclass(frozen=True)
class Calibration:
    """A strictly monotone, invertible map from cosine similarity to score.

    Straight lines join (-1, 0), the measured knots and (1, 100).

    Parameters
    ----------
    knots : tuple of Knot
        By rising similarity.
    dataset, method : str
        What was measured, and how.
    """

    knots: tuple[Knot, ...]
    dataset: str = ""
    method: str = ""

    @classmethod
    def from_spec(cls, spec: CalibrationSpec) -> Calibration:
        """The calibration that a pack's manifest carries."""
        return cls(spec.knots, spec.dataset, spec.method)

    @classmethod
    def fit(
        cls,
        impostor: ArrayLike,
        *,
        dataset: str = "",
        intervals: Sequence[tuple[float, float]] | None = None,
    ) -> Calibration:
        """Measure the knots on similarities of pictures of different people.

        A knot lies half-way between the last impostor similarity that may pass at its rate
        and the first that may not.

        Parameters
        ----------
        impostor : array_like, shape (N,)
            Similarities of impostor comparisons, at least 10 at the rarest rate.
        dataset : str
            Name of what was measured.
        intervals : sequence of (low, high), optional
            95 % interval of the rate at each knot; by default Wilson's, which takes the
            comparisons for independent.

        Raises
        ------
        InvalidParameter
            Too few comparisons, values that are not cosines, or two knots at one similarity.
        """
        ordered = np.sort(np.asarray(impostor, np.float64).ravel())[::-1]
        needed = math.ceil(10 / min(SCORE_AT))
        if len(ordered) < needed:
            raise InvalidParameter(
                f"{len(ordered):,} impostor comparisons are too few to measure "
                f"a false accept rate of {min(SCORE_AT)}",
                f"give at least {needed:,}: 10 are expected to pass at the rarest rate",
            )
        if not (ordered[-1] >= -1 and ordered[0] < 1):  # a NaN fails both
            raise InvalidParameter("impostor similarities must be cosines, -1 to below 1")
        if intervals is not None and (
            len(intervals) != len(SCORE_AT)
            or not all(0 <= low <= high <= 1 for low, high in intervals)
        ):
            raise InvalidParameter(f"intervals must be {len(SCORE_AT)} pairs, low <= high")
        knots = []
        for position, (far, score) in enumerate(SCORE_AT.items()):
            passing = math.floor(far * len(ordered))
            middle = float(ordered[passing - 1 : passing + 1].mean())
            low, high = (
                intervals[position]
                if intervals is not None
                else wilson_interval(passing, len(ordered))
            )
            knots.append(Knot(score, far, round(middle, 6), low, high))
        if any(a.similarity >= b.similarity for a, b in pairwise(knots)):
            raise InvalidParameter("the impostor similarities do not vary enough to calibrate on")
        return cls(tuple(knots), dataset, f"quantiles of {len(ordered):,} impostor comparisons")

    @cached_property
    def _curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        similarity = [-1.0, *(knot.similarity for knot in self.knots), 1.0]
        score = [0.0, *(knot.score for knot in self.knots), 100.0]
        return np.array(similarity), np.array(score)

    def score(self, similarity: ArrayLike) -> NDArray[np.float64]:
        """Score, 0..100, of cosine similarities, -1..1; elementwise."""
        x, y = self._curve
        value = np.asarray(similarity, np.float64)
        # Interpolation may round past the next knot; a score must not.
        left = np.clip(np.searchsorted(x, value, side="right") - 1, 0, len(x) - 2)
        return np.clip(np.interp(value, x, y), y[left], y[left + 1])

    def similarity(self, score: ArrayLike) -> NDArray[np.float64]:
        """Cosine similarity at which a score is reached: the inverse of `score`."""
        x, y = self._curve
        return np.interp(np.asarray(score, np.float64), y, x)

    def far(self, score: ArrayLike) -> NDArray[np.float64]:
        """Share of impostor comparisons that reach a score; elementwise.

        The logarithm of the rate is interpolated linearly between the knots.  Above the last
        knot the last segment's slope is continued: an extrapolation, which `is_extrapolated`
        tells.  At score 0 the rate is 1.
        """
        scores = np.array([0.0, *(knot.score for knot in self.knots)])
        rates = np.log10([1.0, *(knot.far for knot in self.knots)])
        value = np.asarray(score, np.float64)
        inside = np.interp(value, scores, rates)
        slope = (rates[-1] - rates[-2]) / (scores[-1] - scores[-2])
        beyond = rates[-1] + slope * (value - scores[-1])
        return np.asarray(10.0 ** np.where(value > scores[-1], beyond, inside))

    def is_extrapolated(self, score: ArrayLike) -> NDArray[np.bool_]:
        """Whether the rate at a score lies beyond the last that was measured."""
        return np.asarray(np.asarray(score) > self.knots[-1].score)

    def threshold(self, far: float = DEFAULT_FAR) -> float:
        """Score whose false accept rate is `far`: the inverse of the method `far`.

        Raises
        ------
        InvalidParameter
            `far` is not above 0 and at most 1, or so small that no score below 100 has it.
        """
        if not 0 < far <= 1:
            raise InvalidParameter(f"far is {far!r}, must be above 0 and at most 1")
        for knot in self.knots:  # exact at the knots, whatever the logarithm rounds to
            if knot.far == far:
                return knot.score
        rarest = float(self.far(100.0))
        if far < rarest:
            raise InvalidParameter(
                f"far is {far!r}, the rarest that this calibration reaches is {rarest:.2g}",
                "calibrate on more comparisons",
            )
        scores = np.array([0.0, *(knot.score for knot in self.knots), 100.0])
        rates = np.log10(self.far(scores))
        return float(np.interp(-math.log10(far), -rates, scores))

    @cached_property
    def far_thresholds(self) -> Mapping[float, float]:
        """Score by false accept rate, for the documented 1 %, 0.1 % and 0.01 %."""
        return MappingProxyType({far: self.threshold(far) for far in FAR_LEVELS})
