"""Error rates of verification, named as in ISO/IEC 19795-1.

False match rate (FMR): share of impostor comparisons that pass; false non-match rate (FNMR):
share of genuine comparisons that fail.  A comparison passes at or above the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore._utils.extras import require_extra
from facecore.errors import InvalidParameter
from facecore.evaluation.all_pairs import Histograms
from facecore.evaluation.intervals import Rate
from facecore.matching.intervals import RESAMPLES, draw_people

__all__ = [
    "ErrorCurve",
    "best_threshold",
    "error_curve",
    "fmr",
    "fnmr",
    "histogram_curve",
    "k_fold_accuracy",
    "tar_at_far",
    "tar_at_far_rate",
]


def fmr(impostor: ArrayLike, threshold: float) -> float:
    """False match rate: share of impostor comparisons at or above a threshold."""
    values = np.asarray(impostor)
    if not values.size:
        raise InvalidParameter("there are no impostor comparisons")
    return float((values >= threshold).mean())


def fnmr(genuine: ArrayLike, threshold: float) -> float:
    """False non-match rate: share of genuine comparisons below a threshold.

    NaN means that a comparison was not possible and counts as a non-match.
    """
    values = np.asarray(genuine)
    if not values.size:
        raise InvalidParameter("there are no genuine comparisons")
    return float(1 - (values >= threshold).mean())


def tar_at_far(genuine: ArrayLike, impostor: ArrayLike, far: float) -> float:
    """True accept rate at the lowest threshold whose false accept rate is at most `far`.

    Parameters
    ----------
    genuine, impostor : array_like, shape (N,) and (M,)
        Similarities or scores; higher means more similar.  NaN in `genuine` means that a
        comparison was not possible and counts as a non-match.
    far : float
        0..1.

    Returns
    -------
    float
        1 - FNMR, 0..1.

    Raises
    ------
    InvalidParameter
        There is no genuine or no impostor comparison, an impostor is NaN, or `far` is invalid.
    """
    descending = np.sort(np.asarray(impostor, np.float64))[::-1]
    accepted = np.asarray(genuine, np.float64)
    if not len(descending) or not len(accepted) or not 0 <= far <= 1:
        raise InvalidParameter(
            "tar_at_far needs genuine and impostor comparisons and a rate within 0..1"
        )
    if np.isnan(descending).any():
        raise InvalidParameter(
            "an impostor comparison is NaN", "leave out pairs without a similarity"
        )
    allowed = math.floor(far * len(descending))
    if (allowed + 1) / len(descending) <= far:  # 0.29 * 100 is 28.999999999999996
        allowed += 1
    if allowed >= len(descending):
        return 1.0
    # Strictly above the highest comparison that must not pass.
    return float((accepted > descending[allowed]).mean())


def tar_at_far_rate(
    genuine: ArrayLike,
    impostor: ArrayLike,
    far: float,
    *,
    genuine_people: ArrayLike | None = None,
    impostor_people: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Rate:
    """Compute `tar_at_far` with its 95 % interval.

    Parameters
    ----------
    genuine, impostor : array_like, shape (N,) and (M,)
    far : float
        0..1.
    genuine_people : array_like, shape (N,), optional
        Person of each genuine comparison.  Together with `impostor_people` it gives the interval
        of `Rate.resampled`, with a threshold per resample.  Otherwise the interval is Wilson's,
        at the single threshold.
    impostor_people : array_like, shape (M, 2), optional
        The two people of each impostor comparison.
    resamples : int
    seed : int
    """
    value = tar_at_far(genuine, impostor, far)
    accepted, strangers = np.asarray(genuine, np.float64), np.asarray(impostor, np.float64)
    count, total = round(value * len(accepted)), len(accepted)
    if genuine_people is None or impostor_people is None:
        return Rate.wilson(count, total)
    one = np.asarray(genuine_people)
    people = np.concatenate([np.stack([one, one], 1), np.asarray(impostor_people)])
    if people.shape != (total + len(strangers), 2):
        raise InvalidParameter("each comparison must name two people (one if genuine)")
    names, person = np.unique(people, return_inverse=True)
    person = person.reshape(people.shape)
    who = person[:total, 0]
    order = np.argsort(-strangers, kind="stable")
    descending, (first_of, second_of) = strangers[order], person[total:][order].T
    rates = []
    for drawn in draw_people(len(names), resamples, seed):
        passing = np.cumsum(drawn[first_of] * drawn[second_of])
        genuine_weight = drawn[who]
        if not passing[-1] or not genuine_weight.sum():
            continue
        # The first comparison that must not pass; the factor absorbs rounding of the product.
        first = np.searchsorted(passing, far * passing[-1] * (1 + 1e-12), side="right")
        above = accepted > descending[first] if first < len(descending) else np.ones(total, bool)
        rates.append(genuine_weight @ above / genuine_weight.sum())
    return Rate.resampled(count, total, np.array(rates), independent=len(np.unique(who)))


@dataclass(frozen=True, slots=True)
class ErrorCurve:
    """FMR and FNMR over all thresholds; a ROC plots `tar` over `fmr`, a DET `fnmr` over `fmr`.

    Attributes
    ----------
    thresholds : ndarray, shape (K,), float64
        In decreasing order; the first is infinite.
    fmr, fnmr : ndarray, shape (K,), float64
        `fmr` increases and `fnmr` decreases along the curve.
    """

    thresholds: NDArray[np.float64]
    fmr: NDArray[np.float64]
    fnmr: NDArray[np.float64]

    @property
    def tar(self) -> NDArray[np.float64]:
        """True accept rate, 1 - FNMR."""
        return 1.0 - self.fnmr

    def eer(self) -> float:
        """Equal error rate, where FMR = FNMR, interpolated linearly between points."""
        gap = self.fmr - self.fnmr  # rises from -1 to 1
        after = int(np.argmax(gap >= 0))
        if after == 0 or gap[after] == 0:
            return float(self.fmr[after])
        part = -gap[after - 1] / (gap[after] - gap[after - 1])
        return float(self.fmr[after - 1] + part * (self.fmr[after] - self.fmr[after - 1]))


def error_curve(genuine: ArrayLike, impostor: ArrayLike) -> ErrorCurve:
    """Compute both error rates at every threshold that separates two comparisons.

    Raises
    ------
    InvalidParameter
        `genuine` or `impostor` is empty or contains NaN.
    MissingExtra
        scikit-learn is not installed.
    """
    one, other = np.asarray(genuine, np.float64), np.asarray(impostor, np.float64)
    return _curve(one, other, np.ones(len(one)), np.ones(len(other)))


def histogram_curve(histograms: Histograms) -> ErrorCurve:
    """Compute an `error_curve` from histograms, at the lower edge of every occupied bin."""
    low = histograms.edges()[:-1]
    own, other = histograms.genuine > 0, histograms.impostor > 0
    return _curve(low[own], low[other], histograms.genuine[own], histograms.impostor[other])


def _curve(
    genuine: NDArray[np.float64],
    impostor: NDArray[np.float64],
    genuine_weight: NDArray[np.generic],
    impostor_weight: NDArray[np.generic],
) -> ErrorCurve:
    values = np.concatenate([genuine, impostor])
    if not len(genuine) or not len(impostor) or np.isnan(values).any():
        raise InvalidParameter("a curve needs genuine and impostor comparisons, none of them NaN")
    same = np.repeat([True, False], [len(genuine), len(impostor)])
    weight = np.concatenate([genuine_weight, impostor_weight])
    rates = require_extra("sklearn.metrics").roc_curve(same, values, sample_weight=weight)
    false_match, true_accept, thresholds = (np.asarray(part, np.float64) for part in rates)
    return ErrorCurve(thresholds, false_match, 1.0 - true_accept)


def best_threshold(values: NDArray[np.floating], same: NDArray[np.bool_]) -> float:
    """Find the threshold with the highest accuracy of ``values >= threshold`` against `same`.

    Choose the middle one of equally good thresholds, to generalise to unseen pairs.
    """
    if not len(values):
        raise InvalidParameter("a threshold needs at least one comparison")
    order = np.argsort(values, kind="stable")
    ordered, labels = values[order].astype(np.float64), same[order]
    # right[i]: number of correct decisions with the threshold just below ordered[i].
    genuine_above = np.append(np.cumsum(labels[::-1])[::-1], 0)
    impostor_below = np.append(0, np.cumsum(~labels))
    right = genuine_above + impostor_below
    # A threshold cannot separate equal values.
    possible = np.append(True, np.append(ordered[1:] > ordered[:-1], True))
    best = np.flatnonzero(possible & (right == right[possible].max()))
    cut = best[len(best) // 2]
    if cut == 0:
        return float(ordered[0])  # the threshold itself passes
    if cut == len(ordered):
        return float(np.nextafter(ordered[-1], np.inf))
    below, above = ordered[cut - 1], ordered[cut]
    middle = (below + above) / 2
    return float(middle if middle > below else above)


def k_fold_accuracy(
    values: NDArray[np.floating], same: NDArray[np.bool_], fold: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Compute the accuracy of each fold at the best threshold of the other folds.

    Parameters
    ----------
    values : ndarray, shape (N,)
        Similarities; NaN (not comparable) is ignored for the threshold and counts as wrong.
    same : ndarray, shape (N,), bool
        Whether both pictures of a pair show the same person.
    fold : ndarray, shape (N,), int
        Fold of each pair.

    Returns
    -------
    ndarray, shape (folds,), float64

    References
    ----------
    .. [1] G. Huang et al., "Labeled Faces in the Wild", UMass Amherst TR 07-49, 2007
    """
    folds = np.unique(fold)
    if len(folds) < 2:
        raise InvalidParameter(f"{len(folds)} folds: at least two are needed")
    values = np.asarray(values, np.float64)
    compared = ~np.isnan(values)
    accuracies = []
    for k in folds:
        held = fold == k
        threshold = best_threshold(values[compared & ~held], same[compared & ~held])
        accuracies.append((compared & ((values >= threshold) == same))[held].mean())
    return np.array(accuracies)
