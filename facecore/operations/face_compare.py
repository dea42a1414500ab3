"""FaceCompare: decide whether two pictures show one person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facecore.operations.context import Context, new_transaction_id
from facecore.operations.parameters import read
from facecore.operations.pictures import PHOTO
from facecore.operations.quality import quality_scores
from facecore.operations.tables import FACE_COMPARE

__all__ = ["FaceCompareResult", "run"]


@dataclass(frozen=True, slots=True)
class FaceCompareResult:
    """Answer of FaceCompare.

    Attributes
    ----------
    passed : bool
    score : float
        0..100.
    quality : mapping of str to float, or None
        Scores of both faces, 0..100, by their documented names; None if they were not requested.
    transaction_id : str
        32 hexadecimal digits.
    """

    passed: bool
    score: float
    quality: Mapping[str, float] | None
    transaction_id: str

    def to_response(self) -> dict[str, Any]:
        """Return the members of the response body."""
        result: dict[str, Any] = {
            "TransactionId": self.transaction_id,
            "Passed": "Y" if self.passed else "N",
            "FaceComparisonScore": self.score,
        }
        if self.quality is not None:
            result["ExtFaceInfo"] = dict(self.quality)
        return {"Result": result}


def run(context: Context, params: Mapping[str, object]) -> FaceCompareResult:
    """Compare Source with Target."""
    values = read(FACE_COMPARE, params)
    source, target = context.faces(values, PHOTO)
    comparison = context.engine.compare(source, target, threshold=context.config.threshold)
    quality = None
    if values["FaceQualityCheck"] == "Y":
        quality = quality_scores(context.engine, source, target)
    return FaceCompareResult(comparison.passed, comparison.score, quality, new_transaction_id())
