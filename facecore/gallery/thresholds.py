"""Thresholds for 1:N search: the false accept rate grows with the number of comparisons."""

from __future__ import annotations

import math

from facecore.errors import InvalidParameter
from facecore.gallery.records import check_number
from facecore.matching.calibration import Calibration

__all__ = ["best_of", "check_far", "per_comparison", "score_threshold"]


def per_comparison(far: float, comparisons: int) -> float:
    r"""Compute the rate per comparison that gives a search of N faces the rate `far`.

    .. math:: p = 1 - (1 - \mathrm{FAR})^{1/N}

    A search over N faces of other people returns a match with probability
    :math:`1 - (1 - p)^N` if the comparisons are independent (ISO/IEC 19795-1), and with at most
    :math:`N p` otherwise.

    Parameters
    ----------
    far : float
        False accept rate of the search, above 0 and below 1.
    comparisons : int
        N, at least 1.
    """
    return -math.expm1(math.log1p(-far) / comparisons)


def best_of(table: Calibration, similarity: float, comparisons: int) -> float:
    r"""Score the best of n comparisons with one person, corrected for n chances.

    If one comparison with an impostor reaches the similarity at the rate :math:`p`, the best of
    :math:`n` independent comparisons reaches it at the rate :math:`1 - (1 - p)^n`.  Templates of
    one person are dependent, so their rate is lower.

    Parameters
    ----------
    table : Calibration
    similarity : float
        The highest similarity, -1..1.
    comparisons : int
        n, at least 1.
    """
    score = float(table.score(similarity))
    if comparisons == 1 or not 0 < score < 100:
        return score
    rate = -math.expm1(comparisons * math.log1p(-float(table.far(score))))
    return min(score, table.threshold(rate))


def check_far(far: object) -> None:
    """Raise InvalidParameter unless `far` is above 0 and below 1."""
    if check_number(far, "far", 0, 1) in (0, 1):
        raise InvalidParameter(f"far is {far!r}, must be above 0 and below 1")


def score_threshold(table: Calibration, far: float, comparisons: int) -> float:
    """Compute the minimum score at which the share `far` of strangers matches anyone.

    To compare all pairs of a collection, `comparisons` is the number of pairs, and `far` is the
    probability that any pair of different people passes.

    Raises
    ------
    InvalidParameter
        The rate per comparison is too low even for a score of 100.  Between the lowest measured
        rate and that of 100, the threshold is extrapolated (see `Calibration.is_extrapolated`).
    """
    if not comparisons:
        return 100.0
    rate = per_comparison(far, comparisons)
    try:
        return table.threshold(rate)
    except InvalidParameter as error:
        raise InvalidParameter(
            f"far {far:g} over {comparisons:,} comparisons is {rate:.2g} for each: {error.message}",
            "give a threshold, allow a higher far, or compare fewer faces",
        ) from error
