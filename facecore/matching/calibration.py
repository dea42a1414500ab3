"""Convert between cosine similarity, score and false accept rate (FAR) through measured knots."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter, NotCalibrated
from facecore.matching.intervals import wilson_interval
from facecore.models.specs import LEAST_TAIL_SCALE, CalibrationSpec, Knot, MeasuredRate

__all__ = ["FAR_LEVELS", "SCORE_AT", "TAIL", "Calibration"]

# Score at each false accept rate, the same for every pack: the rates used for thresholds are
# ten points apart, and the median impostor score is 20.
SCORE_AT: dict[float, float] = {0.5: 20.0, 0.1: 50.0, 0.01: 70.0, 0.001: 80.0, 0.0001: 90.0}

# The rates of the documented threshold table.
FAR_LEVELS = (0.01, 0.001, 0.0001)

DEFAULT_FAR = 0.001

TAIL = "exponential"

# A rate counts as measured if at least this many comparisons are expected to pass.
_EXPECTED = 10
# The data must suffice to measure this rate.
_MUST_MEASURE = 0.01
# The tail scale is the mean excess of the highest 0.1 % of comparisons, and at least 100 of them.
_TAIL_SHARE, _TAIL_LEAST = 0.001, 100


@dataclass(frozen=True)
class Calibration:
    """A strictly monotone, invertible map from cosine similarity to score.

    The map is piecewise linear through (-1, 0), the knots and (1, 100).  Between knots the
    logarithm of the false accept rate is linear; beyond the last knot the rate falls
    exponentially with the similarity, which is an extrapolation (`is_extrapolated`).

    Parameters
    ----------
    knots : tuple of Knot
        In order of increasing similarity; measured knots come before extrapolated ones.
    dataset, method : str
        Name of the data set and the measuring method.
    identities, genuine, impostor : int
        Numbers of people, genuine and impostor comparisons behind every knot.
    tail_scale : float, optional
        Increase in similarity that divides the rate beyond the last knot by e; by default
        the slope between the last two knots continues.
    contract : str
        Vector space of the similarities; empty if unknown.
    pack : str
        Name of the pack, for error messages; empty if unknown.

    Raises
    ------
    NotCalibrated
        Raised by every method of a table without knots (`missing`), and only then.

    Notes
    -----
    Excesses over a high threshold tend to a generalised Pareto distribution [1]_.  Its shape
    parameter on the packs' impostor comparisons is near zero.  A shape of zero gives the
    exponential distribution, whose only parameter is the mean excess.  The shape is not fitted:
    with 50 people a fitted shape can understate the rate more than tenfold, while the exponential
    tail errs towards higher thresholds (``benchmarks/calibration_tail.py`` prints by how much).

    References
    ----------
    .. [1] J. Pickands, "Statistical inference using extreme order statistics", Annals of
           Statistics 3(1), 1975, doi:10.1214/aos/1176343003
    """

    knots: tuple[Knot, ...]
    dataset: str = ""
    method: str = ""
    identities: int = 0
    genuine: int = 0
    impostor: int = 0
    tail_scale: float | None = None
    contract: str = ""
    pack: str = ""

    @classmethod
    def missing(cls, pack: str, contract: str = "") -> Calibration:
        """Create a placeholder for a pack without a table; every method raises `NotCalibrated`."""
        return cls((), contract=contract, pack=pack)

    @property
    def is_missing(self) -> bool:
        """Whether there is no table, in which case every method raises `NotCalibrated`."""
        return not self.knots

    def _require(self) -> None:
        if not self.knots:
            raise NotCalibrated(
                f"the pack {self.pack} has no calibration, so it gives similarities and no scores",
                f"measure one: facecore calibrate DIR --pack {self.pack} --out FILE, and give "
                "--calibration FILE; DIR holds a folder of pictures per person",
            )

    @classmethod
    def from_spec(cls, spec: CalibrationSpec, contract: str = "") -> Calibration:
        """Create the calibration from a manifest or a user's calibration file."""
        return cls(
            spec.knots,
            spec.dataset,
            spec.method,
            spec.identities,
            spec.genuine,
            spec.impostor,
            spec.tail_scale,
            contract,
        )

    def to_spec(self, embedder: str | None = None) -> CalibrationSpec:
        """Convert to the form stored in a manifest or a calibration file.

        Parameters
        ----------
        embedder : str, optional
            SHA-256 of the measured embedder; binds the table to it.
        """
        self._require()
        return CalibrationSpec(
            self.dataset,
            self.method,
            self.identities,
            self.genuine,
            self.impostor,
            TAIL,
            self._tail_scale,
            self.knots,
            embedder,
        )

    @classmethod
    def fit(
        cls,
        genuine: ArrayLike | None,
        impostor: ArrayLike,
        *,
        dataset: str = "",
        identities: int | None = None,
        genuine_identities: int | None = None,
        contract: str = "",
    ) -> Calibration:
        """Measure the knots on the similarities of a set of comparisons.

        A knot lies half-way between the lowest impostor similarity that passes at its rate
        and the highest that does not.  If fewer than ten comparisons are expected to pass at
        its rate, the knot is extrapolated with the exponential tail and marked
        ``measured=False``.

        Parameters
        ----------
        genuine : array_like, shape (M,), or None
            Similarities of pictures of the same person.  They do not affect the position of
            the knots; each knot reports the share of them that it rejects.
        impostor : array_like, shape (N,)
            Similarities of pictures of different people, at least 1,000.
        dataset : str
            Name of the data set.
        identities : int, optional
            Number of people.  Several pictures per person make the comparisons dependent;
            a rate then counts as measured only if the number of pairs of people suffices too.
        genuine_identities : int, optional
            Number of people with at least two pictures; by default all `identities`.
        contract : str
            Vector space of the similarities.

        Returns
        -------
        Calibration
            With Wilson intervals.  If `identities` is given, they count pairs of people
            (people, for `fnmr`), otherwise comparisons; see `with_intervals`.

        Raises
        ------
        InvalidParameter
            Too few comparisons for a rate of 1 %, values that are not cosines, two knots at
            the same similarity, or a median genuine similarity that is not above the highest
            10 % of the impostors.
        """
        ordered = np.sort(np.asarray(impostor, np.float64).ravel())[::-1]
        same = np.asarray([] if genuine is None else genuine, np.float64).ravel()
        count = len(ordered)
        independent = count
        if identities is not None:
            independent = min(count, identities * (identities - 1) // 2)
        own = identities if genuine_identities is None else genuine_identities
        own = len(same) if own is None else max(1, min(len(same), own))
        _check_fit(same, ordered, independent, identities)
        rates = [far for far in SCORE_AT if far * independent >= _EXPECTED]
        found = {far: _quantile(ordered, far) for far in rates}
        top = min(max(_TAIL_LEAST, round(_TAIL_SHARE * count)), count - 1)
        scale = max(float((ordered[:top] - ordered[top]).mean()), LEAST_TAIL_SCALE)
        last = rates[-1]
        for far in list(SCORE_AT)[len(rates) :]:
            found[far] = found[last] + scale * math.log(last / far)
        # Round as in a file, so that a saved and reloaded calibration equals the fitted one.
        places = {far: round(similarity, 6) for far, similarity in found.items()}
        # No network spreads its cosines this widely, and a file could not hold the values.
        strange = scale > 1 or min(places.values()) <= -1
        if strange or not all(a < b for a, b in pairwise(places.values())):
            raise InvalidParameter("the impostor similarities do not vary enough to calibrate on")
        if places[min(SCORE_AT)] >= 1:
            raise InvalidParameter(
                "the impostor similarities are too close to 1 to calibrate on",
                "check that no person has two folders",
            )
        if len(same) and np.median(same) <= places[0.1]:
            raise InvalidParameter(
                f"the median genuine similarity, {np.median(same):.3f}, is not above "
                f"{places[0.1]:.3f}, which 10 % of the impostors reach",
                "give genuine similarities first; check that each folder holds one person",
            )
        knots = []
        for far, similarity in places.items():
            # Measured knots: the allowed number; extrapolated knots: the number counted.
            passing = math.floor(far * count)
            if far not in rates:
                passing = int((ordered >= similarity).sum())
            fnmr = None
            if len(same):
                below = int((same < similarity).sum())
                share = float(f"{below / len(same):.6g}")
                fnmr = MeasuredRate(share, *wilson_interval(below / len(same) * own, own))
            interval = wilson_interval(passing / count * independent, independent)
            knots.append(Knot(SCORE_AT[far], far, similarity, *interval, far in rates, fnmr))
        return cls(
            tuple(knots),
            dataset,
            "quantiles of all impostor comparisons; Wilson 95 % intervals",
            identities or 0,
            len(same),
            count,
            round(scale, 6),
            contract,
        )

    def with_intervals(
        self,
        far: Sequence[tuple[float, float]],
        fnmr: Sequence[tuple[float, float]] | None = None,
        *,
        method: str,
    ) -> Calibration:
        """Copy the calibration with other 95 % intervals, such as a bootstrap over people.

        Intervals only widen: if a bootstrap saw too few events to vary, the existing interval
        stays.  Bounds are rounded outwards to four digits.

        Parameters
        ----------
        far, fnmr : sequence of (low, high)
            One pair per knot.
        method : str
            Description of the measurement.
        """
        self._require()
        given = [far] if fnmr is None else [far, fnmr]
        for intervals in given:
            if len(intervals) != len(self.knots) or not all(
                0 <= low <= high <= 1 for low, high in intervals
            ):
                raise InvalidParameter(f"intervals must be {len(self.knots)} pairs, low <= high")
        knots = []
        for i, knot in enumerate(self.knots):
            rate = knot.fnmr
            if fnmr is not None and rate is not None:
                rate = MeasuredRate(rate.value, *_wider((rate.low, rate.high), fnmr[i]))
            low, high = _wider((knot.low, knot.high), far[i])
            knots.append(replace(knot, low=low, high=high, fnmr=rate))
        return replace(self, knots=tuple(knots), method=method)

    @cached_property
    def _curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        self._require()
        similarity = [-1.0, *(knot.similarity for knot in self.knots), 1.0]
        score = [0.0, *(knot.score for knot in self.knots), 100.0]
        return np.array(similarity), np.array(score)

    @cached_property
    def _rates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scores, and the logarithms of their false accept rates."""
        _, scores = self._curve
        return scores[:-1], np.log([1.0, *(knot.far for knot in self.knots)])

    @cached_property
    def _tail_scale(self) -> float:
        if self.tail_scale is not None:
            return self.tail_scale
        before, last = self.knots[-2:]
        slope = (last.similarity - before.similarity) / math.log(before.far / last.far)
        return max(slope, LEAST_TAIL_SCALE)

    def score(self, similarity: ArrayLike) -> NDArray[np.float64]:
        """Convert cosine similarities, -1..1, to scores, 0..100; elementwise."""
        x, y = self._curve
        value = np.asarray(similarity, np.float64)
        # Interpolation may round past the next knot, which would break monotonicity.
        left = np.clip(np.searchsorted(x, value, side="right") - 1, 0, len(x) - 2)
        return np.clip(np.interp(value, x, y), y[left], y[left + 1])

    def similarity(self, score: ArrayLike) -> NDArray[np.float64]:
        """Convert scores to cosine similarities: the inverse of `score`."""
        x, y = self._curve
        return np.interp(np.asarray(score, np.float64), y, x)

    def far(self, score: ArrayLike) -> NDArray[np.float64]:
        """Compute the share of impostor comparisons that reach a score; elementwise.

        Beyond the last measured knot the rate is extrapolated; see `is_extrapolated`.
        At score 0 the rate is 1.
        """
        scores, rates = self._rates
        value = np.asarray(score, np.float64)
        inside = np.interp(value, scores, rates)
        excess = self.similarity(value) - self.knots[-1].similarity
        beyond = rates[-1] - excess / self._tail_scale
        return np.asarray(np.exp(np.where(value > scores[-1], beyond, inside)))

    def is_extrapolated(self, score: ArrayLike) -> NDArray[np.bool_]:
        """Whether a score lies beyond the last measured knot."""
        return np.asarray(np.asarray(score) > self.rarest_measured.score)

    @property
    def rarest_measured(self) -> Knot:
        """The measured knot with the lowest false accept rate."""
        self._require()
        return [knot for knot in self.knots if knot.measured][-1]

    @overload
    def threshold(self, far: float = DEFAULT_FAR) -> float: ...

    @overload
    def threshold(self, far: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]: ...

    def threshold(
        self, far: float | Sequence[float] | NDArray[np.floating] = DEFAULT_FAR
    ) -> float | NDArray[np.float64]:
        """Compute the score with the false accept rate `far`: the inverse of the method `far`.

        Raises
        ------
        InvalidParameter
            `far` is not above 0 and at most 1, or is lower than the rate at score 100.
        """
        if np.ndim(far):
            rates = np.asarray(far, np.float64)
            return np.array([self._threshold(one) for one in rates.ravel()]).reshape(rates.shape)
        return self._threshold(float(far))  # type: ignore[arg-type]

    def _threshold(self, far: float) -> float:
        if not 0 < far <= 1:
            raise InvalidParameter(f"far is {far!r}, must be above 0 and at most 1")
        self._require()
        for knot in self.knots:  # exact at the knots, free of rounding in the logarithm
            if knot.far == far:
                return knot.score
        last = self.knots[-1]
        if far > last.far:
            scores, rates = self._rates
            return float(np.interp(-math.log(far), -rates, scores))
        rarest = float(self.far(100.0))
        if far < rarest:
            raise InvalidParameter(
                f"far is {far!r}, the rarest that this calibration reaches is {rarest:.2g}",
                "use a higher far; the strictest threshold is 100",
            )
        similarity = last.similarity + self._tail_scale * math.log(last.far / far)
        return float(self.score(min(similarity, 1.0)))

    @property
    def far_thresholds(self) -> Mapping[float, float]:
        """Threshold for each of the documented false accept rates: 1 %, 0.1 % and 0.01 %.

        Each call returns a new plain dict, which can be pickled.
        """
        return {far: self._threshold(far) for far in FAR_LEVELS}


def _check_fit(
    genuine: NDArray[np.float64],
    impostor: NDArray[np.float64],
    independent: int,
    identities: int | None,
) -> None:
    """Reject data from which no table can be measured; `impostor` is in descending order."""
    needed = math.ceil(_EXPECTED / _MUST_MEASURE)
    if independent < needed:
        people = math.ceil((1 + math.sqrt(1 + 8 * needed)) / 2)
        of_people = "" if identities is None else f" of {identities} people"
        raise InvalidParameter(
            f"{len(impostor):,} impostor comparisons{of_people} are too few to measure "
            f"a false accept rate of {_MUST_MEASURE:.0%}",
            f"give at least {needed:,}, for example from pictures of {people} people",
        )
    if not (impostor[-1] >= -1 and impostor[0] < 1):  # a NaN fails both
        raise InvalidParameter("impostor similarities must be cosines, -1 to below 1")
    if not (np.abs(genuine) <= 1).all():
        raise InvalidParameter("genuine similarities must be cosines, -1 to 1")


def _quantile(descending: NDArray[np.float64], far: float) -> float:
    passing = math.floor(far * len(descending))
    return float(descending[passing - 1 : passing + 1].mean())


def _wider(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    low, high = min(a[0], b[0]), max(a[1], b[1])
    return _four_digits(low, math.floor), min(1.0, _four_digits(high, math.ceil))


def _four_digits(value: float, towards: Callable[[float], int]) -> float:
    if value <= 0:
        return value
    exponent = math.floor(math.log10(value)) - 3
    return float(f"{towards(value * 10.0**-exponent)}e{exponent}")
