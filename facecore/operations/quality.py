"""Quality scores under their documented names."""

from __future__ import annotations

from facecore.engine import FaceEngine
from facecore.face.quality import HIGH_FROM, LOW_BELOW, Level, Quality
from facecore.face.sample import FaceSample

__all__ = ["enrolment_level", "quality_scores"]


def enrolment_level(quality: Quality) -> Level:
    """Return the level for enrolment: that of the score, or of the sharpness if it is lower.

    The score alone rates a face for the current engine, which also recognises blurred faces.  A
    stored face must serve for years.
    """
    score = min(quality.score, quality.operation_scores["SharpnessScore"])
    return "HIGH" if score >= HIGH_FROM else "LOW" if score < LOW_BELOW else "MEDIUM"


def quality_scores(
    engine: FaceEngine, source: FaceSample, target: FaceSample | None
) -> dict[str, float]:
    """Return the five scores of Source, 0..100, and those of Target with the prefix ``Target``."""
    scores = dict(engine.quality(source).operation_scores)
    if target is not None:
        of_target = engine.quality(target).operation_scores
        scores.update({f"Target{name}": score for name, score in of_target.items()})
    return scores
