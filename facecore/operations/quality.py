"""Quality scores under the names of the document."""

from __future__ import annotations

from facecore.engine import FaceEngine
from facecore.face.quality import HIGH_FROM, LOW_BELOW, Level, Quality
from facecore.face.sample import FaceSample

__all__ = ["enrolment_level", "quality_scores"]


def enrolment_level(quality: Quality) -> Level:
    """How good a face is to be stored: the level of its score or of its sharpness, if lower.

    The score alone says how the engine at hand would do; it recognises a blurred face too.  What
    is stored serves for years.
    """
    score = min(quality.score, quality.operation_scores["SharpnessScore"])
    return "HIGH" if score >= HIGH_FROM else "LOW" if score < LOW_BELOW else "MEDIUM"


def quality_scores(
    engine: FaceEngine, source: FaceSample, target: FaceSample | None
) -> dict[str, float]:
    """The five scores of Source, 0..100, and those of Target with ``Target`` before their names."""
    scores = dict(engine.quality(source).operation_scores)
    if target is not None:
        of_target = engine.quality(target).operation_scores
        scores.update({f"Target{name}": score for name, score in of_target.items()})
    return scores
