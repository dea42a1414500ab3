"""Table of quality measures and their maps from raw values to 0–100."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["MEASURES", "Measure", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One quality measure.

    Attributes
    ----------
    name : str
    raw : str
        Definition and unit of the raw value.
    formula : str
        Map from the raw value x to 0..100 (clipped); S(x, c, w) is the `sigmoid`.
    source : str
        Origin of the formula.
    score : callable
        The formula.
    """

    name: str
    raw: str
    formula: str
    source: str
    score: Callable[[float], float]

    def __call__(self, raw: float) -> float:
        """Map a raw value to a score, 0..100."""
        return min(100.0, max(0.0, self.score(raw)))


def sigmoid(x: float, centre: float, width: float) -> float:
    """``S(x, c, w) = 1 / (1 + exp((c - x) / w))``."""
    return 0.5 + 0.5 * math.tanh((x - centre) / width / 2)


def _variance(x: float) -> float:
    return 100 * math.sin(60 * x / (60 * x + 1) * math.pi)


def _pose(x: float) -> float:
    return 100 * max(math.cos(math.radians(x)), 0.0) ** 2


_OFIQ, _ADAPTED, _OWN = "OFIQ", "OFIQ, adapted", "facecore"

_LIST = (
    Measure(
        "sharpness",
        "fine detail of the inner face, ln(σ(LoG)/σ)",
        "100 S(x, -1.9, 0.25)",
        _OWN,
        lambda x: 100 * sigmoid(x, -1.9, 0.25),
    ),
    Measure(
        "compression",
        "visibility of 8x8 block borders, log2",
        "200 (1 - S(x, 0, 0.6))",
        _OWN,
        lambda x: 200 * (1 - sigmoid(x, 0, 0.6)),
    ),
    Measure(
        "luminance_mean",
        "mean luminance of the face, 0..1",
        "100 S(x, 0.2, 0.05) (1 - S(x, 0.8, 0.05))",
        _OFIQ,
        lambda x: 100 * sigmoid(x, 0.2, 0.05) * (1 - sigmoid(x, 0.8, 0.05)),
    ),
    Measure(
        "luminance_variance",
        "variance of the face's luminance",
        "100 sin(π 60x / (60x + 1))",
        _OFIQ,
        _variance,
    ),
    Measure(
        "under_exposure",
        "share of the face with luminance 0..25 of 255",
        "120 (0.832 - S(x, 0.92, 0.05))",
        _OFIQ,
        lambda x: 120 * (0.832 - sigmoid(x, 0.92, 0.05)),
    ),
    Measure(
        "over_exposure",
        "share of the face with luminance 247..255 of 255",
        "1 / (x + 0.01)",
        _OFIQ,
        lambda x: 1 / (x + 0.01),
    ),
    Measure(
        "dynamic_range",
        "entropy of the face's luminance, bits",
        "12.5 x",
        _OFIQ,
        lambda x: 12.5 * x,
    ),
    Measure(
        "illumination_uniformity",
        "overlap of both cheeks' luminance histograms, 32 bins",
        "100 x^0.3",
        _ADAPTED,
        lambda x: 100 * max(x, 0.0) ** 0.3,
    ),
    Measure(
        "natural_colour",
        "distance of the cheeks' colour from a* 5..25, b* 5..35",
        "200 (1 - S(x, 0, 10))",
        _ADAPTED,
        lambda x: 200 * (1 - sigmoid(x, 0, 10)),
    ),
    Measure(
        "eye_distance",
        "distance of the eyes over cos(yaw), pixels",
        "100 S(x, 70, 20)",
        _OFIQ,
        lambda x: 100 * sigmoid(x, 70, 20),
    ),
    Measure(
        "resolution",
        "eye distance divided by that of the aligned crop, 35.2 pixels",
        "100 x",
        _OWN,
        lambda x: 100 * x,
    ),
    Measure(
        "head_size",
        "eye line to chin over the picture's height",
        "200 (1 - S(abs(x - 0.45), 0, 0.05))",
        _ADAPTED,
        lambda x: 200 * (1 - sigmoid(abs(x - 0.45), 0, 0.05)),
    ),
    Measure(
        "margin_left",
        "left edge to the nearer eye, in eye distances",
        "100 S(x, 0.9, 0.1)",
        _OFIQ,
        lambda x: 100 * sigmoid(x, 0.9, 0.1),
    ),
    Measure(
        "margin_right",
        "right edge to the nearer eye, in eye distances",
        "100 S(x, 0.9, 0.1)",
        _OFIQ,
        lambda x: 100 * sigmoid(x, 0.9, 0.1),
    ),
    Measure(
        "margin_above",
        "upper edge to the eye line, in eye-to-chin distances",
        "100 S(x, 1.4, 0.1)",
        _ADAPTED,
        lambda x: 100 * sigmoid(x, 1.4, 0.1),
    ),
    Measure(
        "margin_below",
        "lower edge to the eye line, in eye-to-chin distances",
        "100 S(x, 1.8, 0.1)",
        _ADAPTED,
        lambda x: 100 * sigmoid(x, 1.8, 0.1),
    ),
    Measure(
        "detection",
        "the detector's confidence, 0..1",
        "100 S(x, 0.87, 0.015)",
        _OWN,
        lambda x: 100 * sigmoid(x, 0.87, 0.015),
    ),
    Measure(
        "single_face",
        "area of the second largest face over that of the largest, 0..1",
        "100 (1 - x)",
        _OFIQ,
        lambda x: 100 * (1 - x),
    ),
    Measure(
        "landmark_fit",
        "residual of the landmarks against a frontal face, relative to their spread",
        "200 (1 - S(x, 0, 0.25))",
        _OWN,
        lambda x: 200 * (1 - sigmoid(x, 0, 0.25)),
    ),
    Measure("yaw", "degrees, from five landmarks", "100 cos²x", _ADAPTED, _pose),
    Measure("pitch", "degrees, from five landmarks", "100 cos²x", _ADAPTED, _pose),
    Measure("roll", "degrees, from five landmarks", "100 cos²x", _ADAPTED, _pose),
    Measure(
        "occlusion",
        "covered share of the face, estimated, 0..1",
        "100 (1 - x)",
        _OWN,
        lambda x: 100 * (1 - x),
    ),
    Measure(
        "key_occlusion",
        "covered share of the worst key area (eyes, nose, mouth), estimated, 0..1",
        "100 (1 - x)",
        _OWN,
        lambda x: 100 * (1 - x),
    ),
    Measure(
        "detail",
        "detail of the crop in the direction of least detail, ln, ordinary faces at 0",
        "100 S(x, -0.87, 0.07)",
        _OWN,
        lambda x: 100 * sigmoid(x, -0.87, 0.07),
    ),
    Measure(
        "eyes_visible",
        "log-odds that both eyes are uncovered, estimated",
        "100 S(x, -0.3, 0.6)",
        _OWN,
        lambda x: 100 * sigmoid(x, -0.3, 0.6),
    ),
    Measure(
        "mouth_visible",
        "log-odds that the mouth is uncovered, estimated",
        "100 S(x, 0.2, 0.25)",
        _OWN,
        lambda x: 100 * sigmoid(x, 0.2, 0.25),
    ),
    Measure(
        "tone",
        "log-odds that the picture is not a negative, lower for blue skin, estimated",
        "100 S(x, 1.5, 0.25)",
        _OWN,
        lambda x: 100 * sigmoid(x, 1.5, 0.25),
    ),
)

MEASURES: dict[str, Measure] = {measure.name: measure for measure in _LIST}
