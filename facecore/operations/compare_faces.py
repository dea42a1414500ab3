"""CompareFaces: score the similarity of the faces of two pictures, without a verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from facecore.operations.codes import (
    COMPARE_FACES_ERROR,
    FACE_PIC_NOT_GIVEN,
    IMAGE_VALUE_PATTERN_ERROR,
    OperationError,
)
from facecore.operations.context import Context
from facecore.operations.parameters import Given, read
from facecore.operations.pictures import COMPARED, read_faces
from facecore.operations.tables import COMPARE_FACES_TYPES, COMPARE_FACES_VALUES

__all__ = ["CompareFacesResult", "run"]

_BASE64 = "base64://"
_MOST_BODY = 8 * 2**20  # characters of both values


@dataclass(frozen=True, slots=True)
class CompareFacesResult:
    """Answer of CompareFaces.

    Attributes
    ----------
    similarity_score : float
        0..100.
    thresholds : mapping of float to float
        Lowest score to accept, by false accept rate: 0.01, 0.001 and 0.0001.
    """

    similarity_score: float
    thresholds: Mapping[float, float]

    def to_response(self) -> dict[str, Any]:
        """Return the members of the response body."""
        rates = {f"{far:f}".rstrip("0"): f"{t:.2f}" for far, t in sorted(self.thresholds.items())}
        return {
            "Code": "1",
            "Success": True,
            "Data": {
                "SimilarityScore": self.similarity_score,
                "ConfidenceThresholds": json.dumps(rates),
            },
        }


def run(context: Context, params: Mapping[str, object]) -> CompareFacesResult:
    """Compare Source with Target, one of which may be an identity card's portrait."""
    types = read(COMPARE_FACES_TYPES, params)
    portraits = [name for name in types.texts if types[name] == "IDPic"]
    if len(portraits) == 2:
        raise OperationError(FACE_PIC_NOT_GIVEN)
    given = [way for (way,) in read(COMPARE_FACES_VALUES, params).pictures.values()]
    if sum(len(way.value) for way in given if isinstance(way.value, str)) > _MOST_BODY:
        raise OperationError(
            IMAGE_VALUE_PATTERN_ERROR, f"The values have more than {_MOST_BODY:,} characters."
        )
    ways = [[_by_prefix(way)] for way in given]
    try:
        source, target = read_faces(ways, COMPARED, context.config, context.engine)
        found = context.engine.compare(source, target, id_portrait=bool(portraits))
    except OperationError:
        raise
    except Exception as error:
        raise OperationError(COMPARE_FACES_ERROR) from error
    return CompareFacesResult(found.score, found.far_thresholds)


def _by_prefix(way: Given) -> Given:
    """Read from a value's prefix how the picture is given."""
    if not isinstance(way.value, str):
        return way
    if way.value.startswith(_BASE64):
        return replace(way, value=way.value.removeprefix(_BASE64))
    if way.value.startswith(("http://", "https://")):
        return replace(way, kind="url")
    raise OperationError(
        IMAGE_VALUE_PATTERN_ERROR,
        f"{way.parameter} does not begin with http://, https:// or base64://.",
    )
