"""One score from all measures: fitted, monotone, and small enough to be read.

``score = 100 / (1 + exp(-(OFFSET - Σ weight · max(0, 1 - measure / cut))))``

A measure above its cut costs nothing; no weight is negative, so that a better measure never
lowers the score.  The weights are those of a logistic regression that foretells whether a
comparison with an ordinary picture of the same person passes at FMR 0.1 %, averaged over the
packs: ``weights/training/quality.py`` collects the comparisons and prints the table below.

It leaves out the layout of the picture, which a comparison does not mind, the mean luminance
and the colour, by which it would judge the skin, and the eye distance, for which the resolution
stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["HINGES", "OFFSET", "unified_score"]

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


def unified_score(measures: Mapping[str, float]) -> float:
    """The unified score, 0..100, of measures 0..100 by name."""
    costs = sum(weight * max(0.0, 1 - measures[name] / cut) for name, cut, weight in HINGES)
    return 50 + 50 * math.tanh((OFFSET - costs) / 2)
