"""Quality scores under the names of the document."""

from __future__ import annotations

from facecore.engine import FaceEngine
from facecore.face.sample import FaceSample

__all__ = ["quality_scores"]


def quality_scores(
    engine: FaceEngine, source: FaceSample, target: FaceSample | None
) -> dict[str, float]:
    raise NotImplementedError
