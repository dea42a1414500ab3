"""Quality scores under the names of the document."""

from __future__ import annotations

from facecore.engine import FaceEngine
from facecore.face.sample import FaceSample

__all__ = ["quality_scores"]


def quality_scores(
    engine: FaceEngine, source: FaceSample, target: FaceSample | None
) -> dict[str, float]:
    """The five scores of Source, 0..100, and those of Target with ``Target`` before their names."""
    scores = dict(engine.quality(source).operation_scores)
    if target is not None:
        of_target = engine.quality(target).operation_scores
        scores.update({f"Target{name}": score for name, score in of_target.items()})
    return scores
