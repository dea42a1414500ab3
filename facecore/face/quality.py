"""Face image quality for comparison: named measures and a unified score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from facecore.face.measures import MEASURES
from facecore.face.measures.geometry import geometry, single_face
from facecore.face.measures.occlusion import features, occlusion
from facecore.face.measures.pixels import photometry, texture
from facecore.face.measures.visibility import LIMITING, visibility
from facecore.face.sample import FaceSample

__all__ = [
    "HIGH_FROM",
    "HINGES",
    "LOW_BELOW",
    "OFFSET",
    "Level",
    "Quality",
    "assess",
    "unified_score",
]

Level: TypeAlias = Literal["HIGH", "MEDIUM", "LOW"]

HIGH_FROM = 80.0
LOW_BELOW = 50.0

# The table of `unified_score`, as weights/training/quality.py prints it.
OFFSET = 3.097

# Measure, cut, weight.
HINGES: tuple[tuple[str, float, float], ...] = (
    ("sharpness", 30.0, 2.003),
    ("sharpness", 90.0, 0.324),
    ("compression", 30.0, 1.934),
    ("over_exposure", 30.0, 0.459),
    ("over_exposure", 98.0, 0.245),
    ("dynamic_range", 60.0, 1.769),
    ("dynamic_range", 90.0, 0.922),
    ("dynamic_range", 98.0, 0.058),
    ("illumination_uniformity", 98.0, 0.202),
    ("resolution", 30.0, 4.879),
    ("detection", 98.0, 3.154),
    ("yaw", 90.0, 0.765),
    ("yaw", 98.0, 0.560),
    ("key_occlusion", 98.0, 1.491),
)


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of a face picture for face recognition.

    Attributes
    ----------
    score : float
        Unified score, 0..100 (at most 95.7): the approximate percentage of genuine pairs with
        another, ordinary picture that would pass; see `unified_score`.  The recognisability of the
        face caps it.
    level : {"HIGH", "MEDIUM", "LOW"}
        HIGH from 80, LOW below 50.
    measures : dict
        Name to score, 0..100, 100 is best; `facecore.face.measures.MEASURES` defines each.
    raw : dict
        Name to raw value, in the unit of the measure.
    """

    score: float
    level: Level
    measures: Mapping[str, float]
    raw: Mapping[str, float]

    @property
    def operation_scores(self) -> dict[str, float]:
        """The five scores of the documented operations, 0..100, 100 is best.

        The vendor does not publish its formulas.  Here ``FaceQualityScore`` is the unified
        score, ``IlluminationScore`` the minimum of under-exposure, over-exposure, dynamic range
        and illumination uniformity, ``KaOcclusionScore`` the occlusion of the worst key area
        (eyes, nose, mouth), ``OcclusionScore`` the occlusion of the whole face, and
        ``SharpnessScore`` the sharpness.  High occlusion scores mean that nothing is covered.
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
    """Measure the quality of one face once, and cache it on the sample.

    If the sample was embedded, its recognisability caps the score: a face that the embedder cannot
    read is useless, however good the picture looks.

    Parameters
    ----------
    sample : FaceSample

    Returns
    -------
    Quality
    """
    if not sample.qualities:
        sample.qualities.append(_measured(sample))
    quality: Quality = sample.qualities[0]
    most = sample.recognizability
    if most is None or quality.score <= most:
        return quality
    return replace(quality, score=most, level=_level(most))


def _level(score: float) -> Level:
    return "HIGH" if score >= HIGH_FROM else "LOW" if score < LOW_BELOW else "MEDIUM"


def _measured(sample: FaceSample) -> Quality:
    inputs = features(sample.crop)
    raw = {
        **texture(sample.picture.pixels(), sample.face),
        **photometry(sample.crop),
        **geometry(sample.face, sample.picture.height, sample.picture.width),
        **occlusion(sample.crop, inputs),
        **visibility(sample.crop, inputs),
        "single_face": single_face(sample.face, sample.others),
    }
    measures = {name: measure(raw[name]) for name, measure in MEASURES.items()}
    score = unified_score(measures)
    return Quality(score, _level(score), measures, {name: raw[name] for name in MEASURES})


def unified_score(measures: Mapping[str, float]) -> float:
    """Combine measures (name to 0..100) into the unified score, 0..100.

    ``score = 100 / (1 + exp(-(OFFSET - Σ weight · max(0, 1 - measure / cut))))``

    The lowest of `facecore.face.measures.visibility.LIMITING` caps the score, because strangers
    look alike if one of these measures is low.  A measure above its cut costs nothing.  No weight
    is negative, so a better measure never lowers the score.  The weights come from a logistic
    regression that predicts whether a genuine pair with an ordinary picture passes at FMR 0.1 %,
    averaged over the packs.  ``weights/training/quality.py`` collects the comparisons and prints
    the table.

    The score ignores the layout of the picture, which does not affect a comparison; the mean
    luminance and the colour, which would penalise skin tones; and the eye distance, which
    the resolution already covers.
    """
    costs = sum(weight * max(0.0, 1 - measures[name] / cut) for name, cut, weight in HINGES)
    least = min(measures[name] for name in LIMITING)
    return min(50 + 50 * math.tanh((OFFSET - costs) / 2), least)
