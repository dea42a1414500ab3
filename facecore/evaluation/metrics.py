"""Error rates of verification, by the names of ISO/IEC 19795-1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter

__all__ = ["best_threshold", "fmr", "fmr_interval", "k_fold_accuracy", "tar_at_far"]


def fmr(impostor: ArrayLike, threshold: float) -> float:
    """False match rate: share of impostor comparisons at or above a threshold."""
    values = np.asarray(impostor)
    if not values.size:
        raise InvalidParameter("there are no impostor comparisons")
    return float((values >= threshold).mean())


def fmr_interval(
    vectors: NDArray[np.float32],
    people: NDArray[np.integer],
    thresholds: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """95 % interval of the false match rate among all pairs of a set, by bootstrap of people.

    Every picture takes part in many pairs, so the pairs are not independent, and an interval
    that takes them to be is far too narrow.  Here people are drawn with replacement; a pair
    counts as often as both were drawn, and pairs of one person never count.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        Of unit length.
    people : ndarray, shape (N,), int
        Who is on each picture.
    thresholds : array_like, shape (T,)
        Similarities.
    resamples : int, default 1000
    seed : int

    Returns
    -------
    ndarray, shape (T, 2), float64
        Low and high.

    References
    ----------
    .. [1] R. M. Bolle, N. K. Ratha and S. Pankanti, "Error analysis of pattern recognition
           systems: the subsets bootstrap", CVIU 93(1), 2004, doi:10.1016/j.cviu.2003.08.002
    """
    _, person = np.unique(people, return_inverse=True)
    similarity = vectors @ vectors.T
    different = person[:, None] != person[None]
    rng = np.random.default_rng(seed)
    count = int(person.max()) + 1
    if count < 2:
        raise InvalidParameter("a false match needs two people")
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    weight = drawn[:, person].astype(np.float32)
    total = np.einsum("ri,ri->r", weight @ different.astype(np.float32), weight)
    weight, total = weight[total > 0], total[total > 0]  # one person alone has no such pair
    rates = []
    for threshold in np.asarray(thresholds, np.float64).ravel():
        passing = ((similarity >= threshold) & different).astype(np.float32)
        rates.append(np.einsum("ri,ri->r", weight @ passing, weight) / total)
    return np.asarray(np.quantile(rates, [0.025, 0.975], axis=1).T, np.float64)


def tar_at_far(genuine: ArrayLike, impostor: ArrayLike, far: float) -> float:
    """True accept rate at the lowest threshold whose false accept rate is at most `far`.

    Parameters
    ----------
    genuine, impostor : array_like, shape (N,) and (M,)
        Similarities or scores, higher for more alike.
    far : float
        0..1.

    Returns
    -------
    float
        1 - FNMR, 0..1.
    """
    descending = np.sort(np.asarray(impostor, np.float64))[::-1]
    accepted = np.asarray(genuine, np.float64)
    if not len(descending) or not len(accepted) or not 0 <= far <= 1:
        raise InvalidParameter(
            "tar_at_far needs genuine and impostor comparisons and a rate within 0..1"
        )
    allowed = math.floor(far * len(descending))
    if (allowed + 1) / len(descending) <= far:  # 0.29 * 100 is 28.999999999999996
        allowed += 1
    if allowed >= len(descending):
        return 1.0
    # Strictly above the first comparison that must not pass.
    return float((accepted > descending[allowed]).mean())


def best_threshold(values: NDArray[np.floating], same: NDArray[np.bool_]) -> float:
    """Threshold with the highest accuracy of ``values >= threshold`` against `same`.

    Where several are as good, the middle of them is taken, as a threshold is to serve for
    pairs that were not seen.
    """
    if not len(values):
        raise InvalidParameter("there is no comparison to choose a threshold on")
    order = np.argsort(values, kind="stable")
    ordered, labels = values[order].astype(np.float64), same[order]
    # right[i]: correct decisions when the threshold lies just below ordered[i].
    genuine_above = np.append(np.cumsum(labels[::-1])[::-1], 0)
    impostor_below = np.append(0, np.cumsum(~labels))
    right = genuine_above + impostor_below
    # A threshold cannot part equal values.
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
    """Accuracy of each fold at the threshold that is best on all the others.

    Parameters
    ----------
    values : ndarray, shape (N,)
        Similarities; NaN where a pair could not be compared: no threshold is chosen on it,
        and it counts as wrong.
    same : ndarray, shape (N,), bool
        Whether a pair shows one person.
    fold : ndarray, shape (N,), int
        The fold that a pair belongs to.

    Returns
    -------
    ndarray, shape (folds,), float64

    References
    ----------
    .. [1] G. Huang et al., "Labeled Faces in the Wild", UMass Amherst TR 07-49, 2007
    """
    folds = np.unique(fold)
    if len(folds) < 2:
        raise InvalidParameter(f"{len(folds)} folds: there must be two, to hold one out")
    values = np.asarray(values, np.float64)
    compared = ~np.isnan(values)
    accuracies = []
    for k in folds:
        held = fold == k
        threshold = best_threshold(values[compared & ~held], same[compared & ~held])
        accuracies.append((compared & ((values >= threshold) == same))[held].mean())
    return np.array(accuracies)
