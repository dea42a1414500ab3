"""One probe against many: how the false accept rate grows with the number of comparisons."""

from __future__ import annotations

import math

from facecore.errors import InvalidParameter
from facecore.gallery.records import check_number
from facecore.matching.calibration import Calibration

__all__ = ["best_of", "check_far", "per_comparison", "score_threshold"]


def per_comparison(far: float, comparisons: int) -> float:
    r"""The rate per comparison at which a search of `comparisons` faces has the rate `far`.

    .. math:: p = 1 - (1 - \mathrm{FAR})^{1/N}

    A search of N strangers' faces finds somebody with probability :math:`1 - (1 - p)^N` if the
    comparisons are independent (ISO/IEC 19795-1), and with no more than :math:`N p` if not.

    Parameters
    ----------
    far : float
        Above 0 and below 1.
    comparisons : int
        N, at least 1.
    """
    return -math.expm1(math.log1p(-far) / comparisons)


def best_of(table: Calibration, similarity: float, comparisons: int) -> float:
    r"""Score of the best of several comparisons with one person.

    A stranger has :math:`n` chances, so that the rate at which strangers reach the similarity
    is :math:`1 - (1 - p)^n` for the :math:`p` of one comparison, if they are independent, and
    lower if not, as they are with templates of one person.

    Parameters
    ----------
    table : Calibration
    similarity : float
        The highest of them, -1..1.
    comparisons : int
        n, at least 1.
    """
    score = float(table.score(similarity))
    if comparisons == 1 or not 0 < score < 100:
        return score
    rate = -math.expm1(comparisons * math.log1p(-float(table.far(score))))
    return min(score, table.threshold(rate))


def check_far(far: object) -> None:
    """Refuse what is not a rate above 0 and below 1."""
    if check_number(far, "far", 0, 1) in (0, 1):
        raise InvalidParameter(f"far is {far!r}, must be above 0 and below 1")


def score_threshold(table: Calibration, far: float, comparisons: int) -> float:
    """Score from which a match counts, so that the share `far` of strangers finds anybody.

    Raises
    ------
    InvalidParameter
        The rate per comparison is rarer than the calibration reaches at all.  Where it is rarer
        than what was measured, the threshold is extrapolated
        (`Calibration.is_extrapolated` tells).
    """
    if not comparisons:
        return 100.0
    rate = per_comparison(far, comparisons)
    try:
        return table.threshold(rate)
    except InvalidParameter as error:
        raise InvalidParameter(
            f"far {far:g} over {comparisons:,} faces is {rate:.2g} per comparison: {error.message}",
            "search fewer groups, allow a higher far, or give a threshold",
        ) from error
