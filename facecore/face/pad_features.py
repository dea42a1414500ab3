"""Cut out the input of the liveness network, and measure named cues of a recapture.

Real recaptures seldom show the dots of a display or a printer.  They differ in colour and tone:
a display's white is bluish in a warm room, and a lit medium exceeds the sensor's range.  Every
cue maps the face to one number that has a physical cause.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CUES", "FACE", "PATCH", "REGION", "VIEW", "Cue", "Region", "measure", "region", "views"]

Pixels = NDArray[np.uint8]
Box = NDArray[np.floating]

REGION = 256  # longest side of the surroundings that are kept, in pixels
VIEW = 80  # side of the reduced view, in pixels
PATCH = 112  # side of the patch at native sampling, in pixels
FACE = 96  # side of the face in which cues are measured, in pixels
_REACH = 2.7  # sides of the surroundings, in sides of the face box
_ROOM = 1.7  # sides of the surroundings, in sides of the face box, below which it is a face crop


class Region(NamedTuple):
    """A face with its surroundings, reduced.

    Attributes
    ----------
    pixels : ndarray, shape (H, W, 3), uint8, BGR
        Longest side at most `REGION`.
    box : ndarray, shape (4,), float64
        The face's box in these pixels.
    """

    pixels: Pixels
    box: NDArray[np.float64]


def _rectangle(pixels: Pixels, box: Box, reach: float) -> tuple[int, int, int, int]:
    """Clip the box, enlarged by `reach` about its centre, to the picture: x1, y1, x2, y2."""
    height, width = pixels.shape[:2]
    half = reach / 2 * (box[2:] - box[:2]).astype(np.float64)
    middle = (box[2:] + box[:2]).astype(np.float64) / 2
    x1, y1 = np.clip(np.rint(middle - half), 0, [width - 1, height - 1]).astype(int)
    x2, y2 = np.clip(np.rint(middle + half), [x1 + 1, y1 + 1], [width, height]).astype(int)
    return int(x1), int(y1), int(x2), int(y2)


def _resized(part: Pixels, width: int, height: int) -> Pixels:
    import cv2

    shrinks = part.shape[1] > width or part.shape[0] > height
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (width, height), interpolation=kind), np.uint8)


def region(pixels: Pixels, box: Box) -> Region:
    """Cut out 2.7 times the face box, clipped to the picture, and reduce it to `REGION` pixels.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, 3), uint8, BGR
    box : ndarray, shape (4,)
        x1, y1, x2, y2; may reach outside the picture.
    """
    import cv2

    x1, y1, x2, y2 = _rectangle(pixels, box, _REACH)
    part, inner = pixels[y1:y2, x1:x2], box.astype(np.float64) - (x1, y1, x1, y1)
    longest = max(part.shape[:2])
    if longest <= REGION:
        return Region(part, inner)
    ratio, whole = REGION / longest, longest // REGION
    width, height = (max(1, round(side * ratio)) for side in part.shape[1::-1])
    if whole > 1:  # averages of whole blocks are fast
        rows, columns = (max(1, side // whole) for side in part.shape[:2])
        part = _resized(part[: rows * whole, : columns * whole], columns, rows)
    reduced = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
    return Region(np.asarray(reduced, np.uint8), inner * ratio)


def _view(found: Region) -> Pixels:
    """Cut out the largest part of the region with the face box's proportions, moved inside it."""
    import cv2

    limits = np.array(found.pixels.shape[1::-1]) - 1.0
    size = np.maximum(found.box[2:] - found.box[:2], 1.0)
    half = size * min(_REACH, *np.maximum(limits, 1.0) / size) / 2
    middle = np.clip((found.box[:2] + found.box[2:]) / 2, half, np.maximum(limits - half, half))
    x1, y1 = np.maximum(middle - half, 0).astype(int)
    x2, y2 = (middle + half).astype(int) + 1
    return np.asarray(cv2.resize(found.pixels[y1:y2, x1:x2], (VIEW, VIEW)), np.uint8)


def _patch(pixels: Pixels, box: Box) -> Pixels:
    """Cut out the centre of the face at native sampling, mirrored where the picture ends."""
    height, width = pixels.shape[:2]
    x, y = np.rint((box[:2] + box[2:]) / 2 - PATCH / 2)
    x, y = int(np.clip(x, 0, max(width - PATCH, 0))), int(np.clip(y, 0, max(height - PATCH, 0)))
    part = pixels[y : y + PATCH, x : x + PATCH]
    missing = PATCH - part.shape[0], PATCH - part.shape[1]
    if any(missing):
        part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    return part


def views(pixels: Pixels, box: Box, found: Region) -> Pixels:
    """Build the network's input: a patch of the face at native sampling, next to the reduced view.

    Resizing would remove the moiré of the patch.  The view shows the surroundings.

    Returns
    -------
    ndarray, shape (PATCH, PATCH + VIEW, 3), uint8
        The view is in the upper right, with 0 below it.  The patch is 0 if the picture is a crop
        of the face, because face crops were often resized, which leaves patterns.
    """
    both = np.zeros((PATCH, PATCH + VIEW, 3), np.uint8)
    size = np.maximum(found.box[2:] - found.box[:2], 1.0)
    if (found.pixels.shape[1::-1] >= _ROOM * size).all():
        both[:, :PATCH] = _patch(pixels, box)
    both[:VIEW, PATCH:] = _view(found)
    return both


def _blue(pixels: Pixels) -> float:
    """Logarithm of the ratio of mean blue to mean green."""
    import cv2

    blue, green, *_ = cv2.mean(pixels.reshape(-1, 1, 3))
    return float(np.log((blue + 1.0) / (green + 1.0)))


def white_point(face: Pixels) -> float:
    """ln(blue / green) of the brightest twentieth: a display's white is bluish in a warm room."""
    import cv2

    luma = np.asarray(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), np.uint8)
    counts = np.cumsum(np.bincount(luma.ravel(), minlength=256))
    return _blue(face[luma >= np.searchsorted(counts, 0.95 * counts[-1])])


def blue_cast(face: Pixels) -> float:
    """ln(blue / green) of the whole face."""
    return _blue(face)


def gamut(face: Pixels) -> float:
    r"""Spread of colours: :math:`\det(\mathrm{Cov}(C_b, C_r))^{1/4}`, in grey levels.

    A display saturates colours that a camera has already saturated (the chromatic moments of Wen,
    Han & Jain 2015, doi:10.1109/TIFS.2015.2400395).
    """
    import cv2

    _, *chroma = cv2.split(cv2.cvtColor(face, cv2.COLOR_BGR2YCrCb))
    a, b = (np.asarray(plane, np.float32).ravel() for plane in chroma)
    a, b = a - a.mean(), b - b.mean()
    determinant = float(a @ a) * float(b @ b) - float(a @ b) ** 2
    return float(max(determinant, 0.0) ** 0.25 / len(a) ** 0.5)


def clipping(face: Pixels) -> float:
    """Share of pixels with a channel at 250 or above: a lit medium exceeds the sensor's range."""
    import cv2

    blue, green, red = cv2.split(face)
    return float((cv2.max(cv2.max(blue, green), red) >= 250).mean())


def detail(face: Pixels) -> float:
    """Logarithm of the mean magnitude of the Laplacian, in grey levels: sharpness lifts it."""
    import cv2

    edges = cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), cv2.CV_16S)
    return float(np.log(cv2.norm(edges, cv2.NORM_L1) / edges.size + 0.3))


def lightness(face: Pixels) -> float:
    """Mean luma, 0..1."""
    import cv2

    return float(cv2.mean(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY))[0] / 255)


def contrast(face: Pixels) -> float:
    """Logarithm of the standard deviation of luma, in grey levels: glare and veil lower it."""
    import cv2

    _, deviation = cv2.meanStdDev(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY))
    return float(np.log(deviation[0, 0] + 1.0))


class Cue(NamedTuple):
    """Function that measures a cue, and words for a high or low value that indicates an attack."""

    measure: Callable[[Pixels], float]
    high: str
    low: str


CUES: dict[str, Cue] = {
    "white_point": Cue(white_point, "bluish highlights", "yellowish highlights"),
    "blue_cast": Cue(blue_cast, "a bluish cast", "a yellowish cast"),
    "gamut": Cue(gamut, "an unusually wide range of colours", "few colours"),
    "clipping": Cue(clipping, "many clipped pixels", "few clipped pixels"),
    "detail": Cue(detail, "hard edges", "little fine detail"),
    "lightness": Cue(lightness, "a light face", "a dark face"),
    "contrast": Cue(contrast, "strong contrast", "low contrast"),
}
"""The cues by name."""


def measure(found: Region) -> dict[str, float]:
    """Measure all cues of one face; the keys are those of `CUES`."""
    x1, y1, x2, y2 = _rectangle(found.pixels, found.box, 1.0)
    face = _resized(found.pixels[y1:y2, x1:x2], FACE, FACE)
    return {name: cue.measure(face) for name, cue in CUES.items()}
