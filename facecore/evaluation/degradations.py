"""Degrade pictures by a known degree, to test whether quality measures respond."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facecore.face.alignment import TEMPLATE, estimate
from facecore.face.detection import Face
from facecore.face.measures.geometry import geometry
from facecore.face.measures.pixels import linear

__all__ = ["DEGRADATIONS", "Degradation", "turn_head"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Degradation:
    """A degradation of a picture of a face.

    Attributes
    ----------
    name, unit : str
        Name, and unit of the degree.
    measures : tuple of str
        Quality measures that should respond, the most relevant first.
    degrees : tuple of float
        From harmless to severe.
    apply : callable
        ``apply(pixels, face, degree)`` returns a new picture, (H, W, 3) uint8 BGR; its size may
        differ.
    related : tuple of str
        Measures with an explained side effect.  They were listed after their response was
        observed; docs/quality.md states which figures depend on the list.
    """

    name: str
    unit: str
    measures: tuple[str, ...]
    degrees: tuple[float, ...]
    apply: Callable[[Pixels, Face, float], Pixels]
    related: tuple[str, ...] = ()


def _eye_distance(face: Face) -> float:
    return float(np.hypot(*(face.landmarks[1] - face.landmarks[0])))


def _centre(face: Face) -> tuple[float, float]:
    x, y = face.landmarks.mean(0)
    return float(x), float(y)


def _blur(pixels: Pixels, face: Face, degree: float) -> Pixels:
    import cv2

    sigma = degree * _eye_distance(face)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), max(sigma, 1e-2)), np.uint8)


def _shrink(pixels: Pixels, face: Face, degree: float) -> Pixels:
    import cv2

    size = (max(1, round(pixels.shape[1] / degree)), max(1, round(pixels.shape[0] / degree)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(pixels: Pixels, face: Face, degree: float) -> Pixels:
    import cv2

    _, coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, round(100 - degree)])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def _in_linear_light(pixels: Pixels, gain: NDArray[np.floating] | float) -> Pixels:
    """Scale linear light instead of code values, like a change of exposure."""
    light = np.clip(linear(np.arange(256) / 255)[pixels] * gain, 0, 1)
    coded = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return np.asarray(np.rint(255 * coded), np.uint8)


def _dark(pixels: Pixels, face: Face, degree: float) -> Pixels:
    return _in_linear_light(pixels, 2.0**-degree)


def _bright(pixels: Pixels, face: Face, degree: float) -> Pixels:
    return _in_linear_light(pixels, 2.0**degree)


def _side_light(pixels: Pixels, face: Face, degree: float) -> Pixels:
    """Darken the darker side by `degree` stops per eye distance and brighten the other equally."""
    x1, y1, x2, y2 = (max(0, round(float(v))) for v in face.box)
    middle = round(_centre(face)[0])
    lighter = 1 if pixels[y1:y2, middle:x2].mean() >= pixels[y1:y2, x1:middle].mean() else -1
    across = lighter * (np.arange(pixels.shape[1]) - middle) / _eye_distance(face)
    gain = 2.0 ** (degree * np.clip(across, -1.5, 1.5))
    return _in_linear_light(pixels, np.asarray(gain)[None, :, None])


def _fade(pixels: Pixels, face: Face, degree: float) -> Pixels:
    """Reduce contrast: blend every pixel with the face's mean by the share `degree`."""
    x1, y1, x2, y2 = (max(0, round(float(v))) for v in face.box)
    mean = pixels[y1:y2, x1:x2].mean((0, 1))
    return np.asarray(np.rint(pixels * (1 - degree) + mean * degree), np.uint8)


def _tint(pixels: Pixels, face: Face, degree: float) -> Pixels:
    """Apply blue light: `degree` stops more blue and less red."""
    return _in_linear_light(pixels, 2.0 ** (degree * np.array([1.0, 0.0, -1.0])))


def _roll(pixels: Pixels, face: Face, degree: float) -> Pixels:
    """Rotate the head clockwise to a roll of `degree` degrees."""
    import cv2

    across = face.landmarks[1] - face.landmarks[0]
    own = float(np.degrees(np.arctan2(across[1], across[0])))
    turn = cv2.getRotationMatrix2D(_centre(face), own - degree, 1.0)
    height, width = pixels.shape[:2]
    return np.asarray(
        cv2.warpAffine(pixels, turn, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def turn_head(pixels: Pixels, face: Face, yaw: float = 0.0, pitch: float = 0.0) -> Pixels:
    """Turn the head of a face that looks into the camera.

    The picture is projected onto an ellipsoid with a nose, which is rotated and rendered
    orthographically.  For each pixel (u, v), in eye distances from the head's centre, the
    position x in the source solves ``u = x cos(yaw) + z(x, y) sin(yaw)``, by iteration.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, 3), uint8
    face : Face
        Upright and frontal.
    yaw, pitch : float
        Degrees, to the right of the image and down; at most 60.
    """
    import cv2

    height, width = pixels.shape[:2]
    scale, (cx, cy) = _eye_distance(face), _centre(face)
    v, u = np.mgrid[:height, :width].astype(np.float32)
    u, v = (u - cx) / scale, (v - cy) / scale
    sin, cos = np.sin(np.radians([yaw, pitch])), np.cos(np.radians([yaw, pitch]))

    def depth(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        head = np.sqrt(np.maximum(0, 1 - (x / 1.1) ** 2 - (y / 1.6) ** 2))
        nose = 0.35 * np.exp(-((x / 0.2) ** 2) / 2 - ((y - 0.02) / 0.25) ** 2 / 2)
        return np.asarray(head + nose, np.float32)

    x, y = u, v
    for _ in range(25):
        z = depth(x, y)
        x = 0.5 * x + 0.5 * (u - z * sin[0]) / cos[0]
        y = 0.5 * y + 0.5 * (v - z * sin[1]) / cos[1]
    across, down = np.asarray(x * scale + cx, np.float32), np.asarray(y * scale + cy, np.float32)
    turned = cv2.remap(pixels, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8)


def _cover(pixels: Pixels, face: Face, degree: float) -> Pixels:
    """Hide the share `degree` of the face's height, from below, with a striped ellipse."""
    return _patch(pixels, face, (56.0, 118.0 - 50 * degree), (46.0, 50 * degree))


def _gag(pixels: Pixels, face: Face, degree: float) -> Pixels:
    """Cover the mouth with a striped grey-green ellipse."""
    return _patch(pixels, face, (56.0, 92.0), (26 * degree, 14 * degree))


def _patch(
    pixels: Pixels, face: Face, centre: tuple[float, float], axes: tuple[float, float]
) -> Pixels:
    """Draw a striped ellipse, given in pixels of the aligned crop."""
    import cv2

    back = cv2.invertAffineTransform(estimate(face.landmarks, TEMPLATE).matrix)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    outline = np.array(centre) + np.stack([np.cos(angles), np.sin(angles)], 1) * axes
    points = outline @ back[:, :2].T + back[:, 2]
    mask = np.zeros(pixels.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 255)
    stripes = (np.arange(pixels.shape[0]) // max(1, round(_eye_distance(face) / 6))) % 2
    colours = np.array([[90, 120, 80], [150, 170, 140]], np.uint8)[stripes][:, None]
    return np.where(mask[..., None] > 0, colours, pixels)


def _cut(edge: str) -> Callable[[Pixels, Face, float], Pixels]:
    """Crop one edge of the picture at a distance of 3 - `degree` eye distances from the face."""

    def apply(pixels: Pixels, face: Face, degree: float) -> Pixels:
        height, width = pixels.shape[:2]
        reach = (3 - degree) * _eye_distance(face)
        x, y = _centre(face)
        if edge == "left":
            return pixels[:, max(0, int(x - reach)) :]
        if edge == "right":
            return pixels[:, : min(width, int(x + reach))]
        if edge == "above":
            return pixels[max(0, int(y - reach)) :]
        return pixels[: min(height, int(y + reach))]

    return apply


def _widen(pixels: Pixels, face: Face, degree: float) -> Pixels:
    """Extend the picture's height until eye line to chin is 0.45 - `degree` of it."""
    import cv2

    height, width = pixels.shape[:2]
    own = geometry(face, height, width)["head_size"]
    wanted = round(height * own / (0.45 - degree))
    top = round(_centre(face)[1] - wanted / 2)
    above, below = max(0, -top), max(0, top + wanted - height)
    bordered = cv2.copyMakeBorder(pixels, above, below, 0, 0, cv2.BORDER_REPLICATE)
    return np.asarray(bordered[max(0, top) : max(0, top) + wanted], np.uint8)


_LAYOUT = ("margin_above", "margin_below", "head_size")

_LIST = (
    Degradation(
        "blur", "σ in eye distances", ("sharpness", "detail"),
        (0.01, 0.02, 0.04, 0.06, 0.09, 0.13), _blur, ("detection",),
    ),
    Degradation(
        "low resolution", "times smaller", ("eye_distance", "resolution", "sharpness", "detail"),
        (1, 1.5, 2, 3, 4, 5), _shrink,
    ),
    Degradation("jpeg", "100 - quality", ("compression",), (40, 60, 75, 85, 90, 95), _jpeg),
    Degradation(
        "dark", "stops", ("under_exposure", "luminance_mean", "dynamic_range"),
        (0.0, 0.8, 1.2, 1.6, 2.0, 2.4), _dark, ("luminance_variance", "illumination_uniformity"),
    ),
    Degradation(
        "bright", "stops", ("over_exposure",), (0.5, 1, 1.5, 2, 2.5, 3), _bright,
        ("luminance_mean", "luminance_variance", "dynamic_range"),
    ),
    Degradation(
        "side light", "stops per eye distance", ("illumination_uniformity",),
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5), _side_light,
    ),
    Degradation(
        "fading", "share", ("dynamic_range", "luminance_variance"),
        (0.0, 0.2, 0.4, 0.55, 0.7), _fade,
    ),
    Degradation("blue light", "stops", ("natural_colour",), (0.0, 0.3, 0.6, 0.9, 1.2), _tint),
    Degradation(
        "yaw", "degrees", ("yaw", "landmark_fit"), (0, 10, 20, 30, 40, 50),
        lambda pixels, face, degree: turn_head(pixels, face, yaw=degree),
        # A cheek and an eye disappear, and detection confidence drops.
        ("illumination_uniformity", "occlusion", "key_occlusion", "detection"),
    ),
    Degradation(
        "pitch", "degrees", ("pitch",), (0, 10, 20, 30, 40),
        lambda pixels, face, degree: turn_head(pixels, face, pitch=degree),
        ("detection", *_LAYOUT),
    ),
    Degradation("roll", "degrees", ("roll",), (0, 10, 20, 30, 40), _roll),
    Degradation(
        "cover from below", "share of the face's height",
        ("occlusion", "key_occlusion", "mouth_visible"),
        (0.0, 0.15, 0.3, 0.45, 0.6), _cover, ("natural_colour", "detection", *_LAYOUT),
    ),
    Degradation(
        "covered mouth", "share", ("key_occlusion", "mouth_visible"), (0.2, 0.4, 0.6, 0.8, 1.0),
        _gag,
    ),
    Degradation("cut left", "eye distances", ("margin_left",), (1.0, 1.3, 1.6, 1.9), _cut("left")),
    Degradation(
        "cut right", "eye distances", ("margin_right",), (1.0, 1.3, 1.6, 1.9), _cut("right")
    ),
    Degradation(
        "cut above", "eye distances", ("margin_above",), (0.0, 0.5, 1.0, 1.5), _cut("above"),
        ("head_size",),
    ),
    Degradation(
        "cut below", "eye distances", ("margin_below",), (0.0, 0.5, 1.0, 1.5), _cut("below"),
        ("head_size",),
    ),
    Degradation(
        "wider view", "share of the height", ("head_size",), (0.0, 0.05, 0.1, 0.15, 0.2), _widen,
        ("margin_above", "margin_below"),
    ),
)  # fmt: skip

DEGRADATIONS: dict[str, Degradation] = {kind.name: kind for kind in _LIST}
