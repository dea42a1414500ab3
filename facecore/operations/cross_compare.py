"""FaceCrossCompareIntl: decide whether three pictures show one person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from facecore.matching.comparison import Comparison
from facecore.operations.context import Context, new_transaction_id
from facecore.operations.parameters import Parameter, read
from facecore.operations.pictures import PHOTO
from facecore.operations.tables import CROSS_COMPARE, EXACT_BIZ_ID

__all__ = ["CrossCompareResult", "run"]

_EXACT = tuple(
    replace(row, pattern=EXACT_BIZ_ID)
    if isinstance(row, Parameter) and row.name == "MerchantBizId"
    else row
    for row in CROSS_COMPARE
)


@dataclass(frozen=True, slots=True)
class CrossCompareResult:
    """Answer of FaceCrossCompareIntl.

    Attributes
    ----------
    passed : bool
        Whether every compared pair passed.
    score_ab, score_bc : float
        Cosine similarity, 0..1.
    score_ca : float or None
        None in a chain, where C is not compared with A.
    transaction_id : str
        32 hexadecimal digits.
    """

    passed: bool
    score_ab: float
    score_bc: float
    score_ca: float | None
    transaction_id: str

    def to_response(self) -> dict[str, Any]:
        """Return the members of the response body."""
        result: dict[str, Any] = {
            "FacePassed": "Y" if self.passed else "N",
            "FaceComparisonScoreA2B": self.score_ab,
            "FaceComparisonScoreB2C": self.score_bc,
        }
        if self.score_ca is not None:
            result["FaceComparisonScoreC2A"] = self.score_ca
        result["TransactionId"] = self.transaction_id
        return {"Result": result}


def run(context: Context, params: Mapping[str, object]) -> CrossCompareResult:
    """Compare A with B and B with C, and in a loop also C with A."""
    config = context.config
    values = read(_EXACT if config.exact_biz_id else CROSS_COMPARE, params)
    mode: Literal["chain", "loop"] = "loop" if values["CompareModel"] == "1" else "chain"
    a, b, c = context.faces(values, PHOTO)
    found = context.engine.cross_compare(a, b, c, mode, threshold=config.threshold)
    return CrossCompareResult(
        found.passed,
        _score(found.ab),
        _score(found.bc),
        None if found.ca is None else _score(found.ca),
        new_transaction_id(),
    )


def _score(pair: Comparison) -> float:
    """Return the cosine similarity, 0..1; only this operation uses it as the score."""
    return min(max(pair.similarity, 0.0), 1.0)
