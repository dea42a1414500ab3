"""Error rates of verification, by the names of ISO/IEC 19795-1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter

__all__ = ["best_threshold", "fmr", "k_fold_accuracy", "tar_at_far"]


def fmr(impostor: ArrayLike, threshold: float) -> float:
    """False match rate: share of impostor comparisons at or above a threshold."""
    return float((np.asarray(impostor) >= threshold).mean())


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
    if not len(descending) or not 0 <= far <= 1:
        raise InvalidParameter("tar_at_far needs impostor comparisons and a rate within 0..1")
    allowed = math.floor(far * len(descending))
    if allowed >= len(descending):
        return 1.0
    # Strictly above the first comparison that must not pass.
    return float((np.asarray(genuine) > descending[allowed]).mean())


def best_threshold(values: NDArray[np.floating], same: NDArray[np.bool_]) -> float:
    """Threshold with the highest accuracy of ``values >= threshold`` against `same`.

    Where several are as good, the middle of them is taken, as a threshold is to serve for
    pairs that were not seen.
    """
    order = np.argsort(values, kind="stable")
    ordered, labels = values[order].astype(np.float64), same[order]
    # right[i]: correct decisions when the threshold lies just below ordered[i].
    genuine_above = np.append(np.cumsum(labels[::-1])[::-1], 0)
    impostor_below = np.append(0, np.cumsum(~labels))
    right = genuine_above + impostor_below
    # A threshold cannot part equal values.
    possible = np.append(True, np.append(ordered[1:] > ordered[:-1], True))
    best = np.flatnonzero(possible & (right == right[possible].max()))
    edges = np.concatenate([ordered[:1] - 1e-6, (ordered[1:] + ordered[:-1]) / 2, ordered[-1:] + 1e-6])
    return float(edges[best[len(best) // 2]])


def k_fold_accuracy(
    values: NDArray[np.floating], same: NDArray[np.bool_], fold: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Accuracy of each fold at the threshold that is best on all the others.

    Parameters
    ----------
    values : ndarray, shape (N,)
        Similarities.
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
    accuracies = []
    for k in np.unique(fold):
        held = fold == k
        threshold = best_threshold(values[~held], same[~held])
        accuracies.append(((values[held] >= threshold) == same[held]).mean())
    return np.array(accuracies)
