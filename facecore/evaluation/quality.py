"""Evaluate quality measures by the error that remains after discarding the worst pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter

__all__ = ["DiscardCurve", "error_versus_discard"]


@dataclass(frozen=True, slots=True)
class DiscardCurve:
    """FNMR of the remaining genuine comparisons over the share discarded.

    Attributes
    ----------
    discarded : ndarray, shape (K,), float64
        Increasing from 0, below 1.
    fnmr : ndarray, shape (K,), float64
        Step function: each value applies up to the next point.
    """

    discarded: NDArray[np.float64]
    fnmr: NDArray[np.float64]

    def partial_area(self, limit: float = 0.2) -> float:
        """Area under the curve from 0 to `limit`, divided by `limit`: a mean FNMR.

        Lower is better; an uninformative quality measure gives the FNMR of all comparisons.
        """
        if not 0 < limit <= 1:
            raise InvalidParameter(f"limit is {limit!r}, must be above 0 and at most 1")
        ends = np.minimum(np.append(self.discarded, 1.0), limit)
        return float((np.diff(ends) * self.fnmr).sum() / limit)

    def best_area(self, limit: float = 0.2) -> float:
        """`partial_area` of an ideal quality measure, which discards false non-matches first."""
        start = float(self.fnmr[0])
        # After discarding the share d, the FNMR is (start - d) / (1 - d) until it reaches 0.
        end = min(limit, start)
        return (end + (1 - start) * float(np.log1p(-end))) / limit if start < 1 else 1.0


def error_versus_discard(
    genuine: ArrayLike, quality_a: ArrayLike, quality_b: ArrayLike, threshold: float
) -> DiscardCurve:
    """Compute the error-versus-discard curve of a quality measure.

    The quality of a comparison is that of its worse picture.  Comparisons of equal quality are
    discarded together, which makes the curve independent of the input order.

    Parameters
    ----------
    genuine : array_like, shape (N,)
        Similarities of genuine comparisons; NaN (not comparable) counts as a non-match.
    quality_a, quality_b : array_like, shape (N,)
        Quality of the two pictures; higher is better.
    threshold : float
        Similarity at which a comparison passes; usually chosen for an initial FNMR near 5 %.

    References
    ----------
    .. [1] P. Grother and E. Tabassi, "Performance of biometric quality measures", IEEE TPAMI
           29(4), 2007, doi:10.1109/TPAMI.2007.1019
    .. [2] T. Schlett et al., "Considerations on the evaluation of biometric quality assessment
           algorithms", 2023, arXiv:2303.13294
    .. [3] ISO/IEC 29794-1:2024
    """
    failing = ~(np.asarray(genuine, np.float64) >= threshold)
    worse = np.minimum(np.asarray(quality_a, np.float64), np.asarray(quality_b, np.float64))
    if not len(failing) or worse.shape != failing.shape or np.isnan(worse).any():
        raise InvalidParameter("every genuine comparison needs a similarity and two qualities")
    order = np.argsort(worse, kind="stable")
    ordered, failed = worse[order], failing[order]
    # Step k discards everything before the k-th distinct quality.
    first = np.flatnonzero(np.append(True, ordered[1:] > ordered[:-1]))
    left = len(ordered) - first
    failures_left = np.cumsum(failed[::-1])[::-1][first]
    return DiscardCurve(first / len(ordered), failures_left / left)
