"""How far a picture of a face will serve for comparison: named measures and one score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from facecore.face.measures import MEASURES
from facecore.face.measures.geometry import geometry
from facecore.face.measures.occlusion import occlusion
from facecore.face.measures.photometry import photometry
from facecore.face.measures.texture import texture
from facecore.face.measures.unified import unified_score
from facecore.face.sample import FaceSample

__all__ = ["HIGH_FROM", "LOW_BELOW", "Level", "Quality", "assess"]

Level: TypeAlias = Literal["HIGH", "MEDIUM", "LOW"]

HIGH_FROM = 80.0
LOW_BELOW = 50.0


@dataclass(frozen=True, slots=True)
class Quality:
    """What a picture of a face is worth to face recognition.

    Attributes
    ----------
    score : float
        0..100 (95.7 at the best), the unified score: about the percentage of comparisons with
        another, ordinary picture of the same person that would pass; see
        `facecore.face.measures.unified`.
    level : {"HIGH", "MEDIUM", "LOW"}
        HIGH from 80, LOW below 50.
    measures : dict
        Name to score, 0..100, 100 is best; `facecore.face.measures.MEASURES` says what each is.
    raw : dict
        Name to the raw value, in the unit that the measure states.
    """

    score: float
    level: Level
    measures: Mapping[str, float]
    raw: Mapping[str, float]

    @property
    def operation_scores(self) -> dict[str, float]:
        """The five scores that the documented operations know, 0..100, 100 is best.

        The vendor does not say how its own are made.  Here ``FaceQualityScore`` is the unified
        score, ``IlluminationScore`` the least of under-exposure, over-exposure, dynamic range
        and illumination uniformity, ``KaOcclusionScore`` the occlusion of the key areas (eyes,
        nose, mouth: the worst of them), ``OcclusionScore`` that of the whole face, and
        ``SharpnessScore`` the sharpness.  Occlusion scores too are high where nothing is covered.
        """
        light = ("under_exposure", "over_exposure", "dynamic_range", "illumination_uniformity")
        return {
            "FaceQualityScore": self.score,
            "IlluminationScore": min(self.measures[name] for name in light),
            "KaOcclusionScore": self.measures["key_occlusion"],
            "OcclusionScore": self.measures["occlusion"],
            "SharpnessScore": self.measures["sharpness"],
        }


def assess(sample: FaceSample) -> Quality:
    """Measure one face.

    Parameters
    ----------
    sample : FaceSample

    Returns
    -------
    Quality
    """
    raw = {
        **texture(sample.pixels, sample.face),
        **photometry(sample.crop),
        **geometry(sample.face, sample.picture.height, sample.picture.width),
        **occlusion(sample.crop),
    }
    measures = {name: measure(raw[name]) for name, measure in MEASURES.items()}
    score = unified_score(measures)
    level: Level = "HIGH" if score >= HIGH_FROM else "LOW" if score < LOW_BELOW else "MEDIUM"
    return Quality(score, level, measures, {name: raw[name] for name in MEASURES})
