"""Spoil pictures of faces as cameras, hands and networks do, to test false accepts.

A `Spoiling` changes any number of pictures in the same way.  Strangers' vectors are most similar
if both pictures are poor in the same way, so `ROWS` and `draw` test the worst false accept rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore.face.alignment import TEMPLATE, estimate
from facecore.face.detection import Face

__all__ = ["COVERS", "ROWS", "Spoiling", "draw", "kind_of"]

Pixels = NDArray[np.uint8]

# Outlines, in pixels of the aligned crop, of covers over the eyes, the mouth, or more.
_ANGLES = np.linspace(0, 2 * np.pi, 32, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
COVERS: dict[str, tuple[NDArray[np.float64], ...]] = {
    "glasses": (
        TEMPLATE[0] + (-1, 2) + _CIRCLE * (15, 12),
        TEMPLATE[1] + (1, 2) + _CIRCLE * (15, 12),
        np.array([[2.0, 46], [110, 46], [110, 49], [2, 49]]),
    ),
    "bar": (np.array([[6.0, 40], [106, 40], [106, 63], [6, 63]]),),
    "mask": (
        np.array([[8.0, 70], [56, 62], [104, 70], [101, 98], [78, 116], [34, 116], [11, 98]]),
    ),
    "hand": (TEMPLATE[3:].mean(axis=0) + _CIRCLE * (26, 18),),
    "half": (np.array([[56.0, -10], [130, -10], [130, 130], [56, 130]]),),
    "hat": (np.array([[-10.0, -30], [122, -30], [122, 44], [-10, 44]]),),
}


@dataclass(frozen=True, slots=True)
class Spoiling:
    """One way to spoil a picture; the defaults change nothing.

    Attributes
    ----------
    turn : int
        Quarter turns, clockwise.
    tilt : float
        Further turn in degrees, clockwise, around the face.
    cover : str
        A key of `COVERS`, or an empty string for none.
    shade : float
        Grey level of the cover, 0..255.
    gain : float
        Factor of all grey levels.
    fade : float
        Share of the contrast that is lost, 0..1.
    line, line_angle : float
        Length of motion blur in face sizes, and its direction in degrees.
    blur : float
        Standard deviation of Gaussian blur in face sizes.
    face_pixels : float
        Size in pixels to which the face is reduced before it is enlarged again; 0 for none.
    noise : float
        Standard deviation of the noise, in grey levels.
    negative, grey : bool
    jpeg : int
        JPEG quality; 0 for no compression.
    """

    turn: int = 0
    tilt: float = 0.0
    cover: str = ""
    shade: float = 20.0
    gain: float = 1.0
    fade: float = 0.0
    line: float = 0.0
    line_angle: float = 0.0
    blur: float = 0.0
    face_pixels: float = 0.0
    noise: float = 0.0
    negative: bool = False
    grey: bool = False
    jpeg: int = 0

    def apply(self, pixels: Pixels, face: Face, seed: int = 0) -> Pixels:
        """Spoil a picture.

        Parameters
        ----------
        pixels : ndarray, shape (H, W, 3), uint8, BGR
        face : Face
            Upright face of `pixels`; sizes are relative to it.
        seed : int
            Seed of the noise.
        """
        import cv2

        size, image = max(face.size, 1.0), pixels
        if self.cover:
            image = _covered(image, face, self.cover, self.shade)
        if self.tilt:
            x, y = face.box.reshape(2, 2).mean(axis=0)
            height, width = image.shape[:2]
            around = cv2.getRotationMatrix2D((float(x), float(y)), -self.tilt, 1.0)
            shape = (width, height)
            image = _bytes(cv2.warpAffine(image, around, shape, borderMode=cv2.BORDER_REPLICATE))
        if self.blur:
            image = _bytes(cv2.GaussianBlur(image, (0, 0), max(self.blur * size, 0.1)))
        if self.line:
            image = _bytes(cv2.filter2D(image, -1, _line(self.line * size, self.line_angle)))
        if self.face_pixels and self.face_pixels < size:
            height, width = image.shape[:2]
            ratio = self.face_pixels / size
            small = (max(1, round(width * ratio)), max(1, round(height * ratio)))
            reduced = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
            image = _bytes(cv2.resize(reduced, (width, height), interpolation=cv2.INTER_CUBIC))
        if self.gain != 1 or self.fade or self.noise:
            light = image.astype(np.float32) * self.gain
            if self.fade:
                light += self.fade * (light.mean() - light)
            if self.noise:
                rng = np.random.default_rng(seed)
                light += rng.standard_normal(light.shape, np.float32) * self.noise
            image = light.clip(0, 255).astype(np.uint8)
        if self.negative:
            image = 255 - image
        if self.grey:
            plane = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            image = _bytes(cv2.cvtColor(plane, cv2.COLOR_GRAY2BGR))
        if self.turn:
            image = np.rot90(image, -self.turn)
        image = np.ascontiguousarray(image)
        if self.jpeg:
            _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg])
            image = _bytes(cv2.imdecode(coded, cv2.IMREAD_COLOR))
        return image


def _bytes(image: object) -> Pixels:
    return np.asarray(image, np.uint8)


def _covered(pixels: Pixels, face: Face, cover: str, shade: float) -> Pixels:
    import cv2

    fit = estimate(face.landmarks, TEMPLATE)
    back = cv2.invertAffineTransform(fit.matrix)
    image = pixels.copy()
    for outline in COVERS[cover]:
        points = np.rint((outline @ back[:, :2].T + back[:, 2]) * 16).astype(np.int32)
        cv2.fillPoly(image, [points], (shade, shade, shade), cv2.LINE_AA, 4)
    return image


def _line(length: float, angle: float) -> NDArray[np.float32]:
    """Kernel of motion blur along a line of `length` pixels."""
    import cv2

    side = max(3, math.ceil(length) | 1)
    middle = (side - 1) / 2
    half = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))]) * length / 2
    kernel = np.zeros((side, side), np.float32)
    begin, end = (np.rint((middle + s * half) * 16).astype(int) for s in (-1, 1))
    cv2.line(kernel, begin.tolist(), end.tolist(), 1.0, 1, cv2.LINE_AA, 4)
    return np.asarray(kernel / kernel.sum(), np.float32)


ROWS: dict[str, Spoiling] = {
    "as they are": Spoiling(),
    "upside down": Spoiling(turn=2),
    "on their side": Spoiling(turn=1),
    "blurred by motion": Spoiling(line=0.125),
    "dark sunglasses drawn": Spoiling(cover="glasses"),
    "lower face covered": Spoiling(cover="mask", shade=180.0),
    "face of 16 pixels": Spoiling(face_pixels=16.0),
    "negative": Spoiling(negative=True),
    "very dark and noisy": Spoiling(gain=0.06, noise=6.0),
}
"""Unchanged pictures, and spoilings that make strangers' vectors similar."""


def draw(rng: np.random.Generator, kinds: int = 2) -> Spoiling:
    """Draw a random spoiling of one to `kinds` kinds, from harmless to unreadable."""
    values: dict[str, Any] = {}
    odds = {"turn": 1, "tilt": 1, "cover": 3, "light": 1, "dark": 1.5, "fade": 0.7, "line": 2}
    odds |= {"blur": 1.5, "small": 2, "noise": 1, "negative": 0.7, "grey": 0.5, "jpeg": 1}
    shares = np.array(list(odds.values())) / sum(odds.values())
    count = int(rng.integers(1, kinds + 1))
    for name in rng.choice(list(odds), count, replace=False, p=shares):
        if name == "turn":
            values["turn"] = int(rng.integers(1, 4))
        elif name == "tilt":
            values["tilt"] = float(rng.uniform(-180, 180))
        elif name == "cover":
            values["cover"] = str(rng.choice([*COVERS, "glasses", "mask"]))  # people wear these
            values["shade"] = float(rng.uniform(0, 255) if rng.random() < 0.6 else 15)
        elif name == "light":
            values["gain"] = float(rng.uniform(1.2, 4))
        elif name == "dark":
            values["gain"] = float(np.exp(rng.uniform(np.log(0.02), np.log(0.5))))
            values["noise"] = float(rng.uniform(0, 10))
        elif name == "fade":
            values["fade"] = float(rng.uniform(0.5, 0.97))
        elif name == "line":
            values["line"] = float(rng.uniform(0.04, 0.3))
            values["line_angle"] = float(rng.choice([0, 90, rng.uniform(0, 180)]))
        elif name == "blur":
            values["blur"] = float(rng.uniform(0.01, 0.1))
        elif name == "small":
            values["face_pixels"] = float(np.exp(rng.uniform(np.log(8), np.log(48))))
        elif name == "noise":
            values["noise"] = float(np.exp(rng.uniform(np.log(5), np.log(80))))
        elif name == "jpeg":
            values["jpeg"] = int(rng.integers(2, 40))
        else:
            values[str(name)] = True
    return Spoiling(**values)


def kind_of(spoiling: Spoiling) -> str:
    """Name the main defect of a picture: turned, covered, small, blurred, dark or poor."""
    if spoiling.turn or abs(spoiling.tilt) > 30:
        return "turned"
    if spoiling.cover:
        return "covered"
    if spoiling.face_pixels:
        return "small"
    if spoiling.line or spoiling.blur:
        return "blurred"
    if spoiling.gain < 1:
        return "dark"
    return "poor"
