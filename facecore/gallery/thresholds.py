"""One probe against many: how the false accept rate grows with the number of comparisons."""

from __future__ import annotations

import math

from facecore.errors import InvalidParameter
from facecore.matching.calibration import Calibration

__all__ = ["per_comparison", "score_threshold"]


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
