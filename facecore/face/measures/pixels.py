"""Measures of light, colour, blur and compression, computed from pixels."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from facecore.errors import NoFaceDetected
from facecore.face.alignment import CROP_SIZE, TEMPLATE, estimate, warp
from facecore.face.detection import Face

__all__ = [
    "blockiness",
    "colour_distance",
    "entropy",
    "linear",
    "luminance",
    "photometry",
    "sharpness",
    "texture",
    "uniformity",
]

# Ellipse of the face in the aligned crop: temple to temple, hairline to chin.  It replaces the
# convex hull of OFIQ's 98 landmarks.
_CENTRE, _AXES = (56.0, 70.0), (36.0, 46.0)

# Levels of the 8-bit luminance that count as under- and over-exposed (OFIQ).
DARK, BRIGHT = 25, 247

# OFIQ compares the cheeks with 256 bins on squares of 34x34 pixels.  On squares of 10x10 most of
# these bins would be empty by chance, so each bin holds eight levels.
_LEVELS_PER_BIN = 8

# The part of the aligned crop in which sharpness is measured, at twice the crop's scale:
# from above the brows to below the mouth.
_SCALE, _SIDE = 2.0, 160
_CORNER = np.array([16.0, 28.0])

# Variance that rounding to 8 bits adds to a flat picture, in squared grey levels.
_ROUNDING = 0.02

# Added to the logarithm of the second difference along one line, to compare it with the Laplacian.
_LINE = 2.0

# JPEG blocks follow the pixel grid of the picture, so compression is measured without resizing.
# A window of this many pixels around the face is enough.
_BLOCK, _WINDOW = 8, 256
_STEEPEST = 16  # grey levels; larger steps are edges of the picture content


@cache
def _face() -> NDArray[np.intp]:
    """Flat indices of the crop pixels inside the face."""
    rows, columns = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    x, y = (columns - _CENTRE[0]) / _AXES[0], (rows - _CENTRE[1]) / _AXES[1]
    return np.flatnonzero((x * x + y * y).ravel() <= 1)


@cache
def _cheeks() -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns of OFIQ's cheek squares: 0.3 eye distances wide, halfway to the mouth."""
    (right, left), mouth = TEMPLATE[:2], TEMPLATE[3:].mean(0)
    side = int(0.3 * (left[0] - right[0]))
    top = int(right[1] + (mouth[1] - right[1]) / 2)
    rows = slice(top, top + side)
    first, last = int(right[0]), int(left[0])
    return (rows, slice(first - side, first)), (rows, slice(last, last + side))


def linear(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Convert gamma-coded sRGB to linear light, both 0..1 (IEC 61966-2-1)."""
    v = np.asarray(values, np.float64)
    return np.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)


@cache
def _weights() -> NDArray[np.float32]:
    """Linear light of each 8-bit value times the channel weight, 0..255; (1, 256, 3) BGR."""
    light = 255 * linear(np.arange(256) / 255)
    return np.asarray((light[:, None] * [0.0722, 0.7152, 0.2126])[None], np.float32)


def luminance(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Relative luminance: ``round(255 (0.2126 R + 0.7152 G + 0.0722 B))`` of linear light.

    Parameters
    ----------
    crop : ndarray, shape (H, W, 3), uint8, BGR

    Returns
    -------
    ndarray, shape (H, W), uint8
    """
    import cv2

    parts = cv2.LUT(crop, _weights())
    total = cv2.transform(parts, np.ones((1, 3))).reshape(crop.shape[:2])
    return np.asarray(total + 0.5, np.uint8)


def entropy(histogram: NDArray[np.floating]) -> float:
    """Shannon entropy in bits of a histogram that sums to 1."""
    p = histogram[histogram > 0]
    return float(-(p * np.log2(p)).sum()) + 0.0


def uniformity(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Overlap of two luminance histograms, 0..1."""
    bins = 256 // _LEVELS_PER_BIN
    a, b = (
        np.bincount(part.ravel() // _LEVELS_PER_BIN, minlength=bins) / part.size
        for part in (first, second)
    )
    return float(np.minimum(a, b).sum())


def colour_distance(bgr: NDArray[np.floating]) -> float:
    """Distance of a mean colour from the skin range: a* 5..25 and b* 5..35.

    The conversion to CIELAB (D50) follows OFIQ, but with 24389/27 instead of OFIQ's 24289/27,
    which affects only very dark colours.  If a* or b* is negative, OFIQ returns 100 at once.
    Here the distance keeps growing, so a grey picture, whose a* is zero up to rounding, causes
    no jump.

    Parameters
    ----------
    bgr : ndarray, shape (3,)
        0..255.
    """
    blue, green, red = linear(np.asarray(bgr) / 255)
    X = 0.43605 * red + 0.38508 * green + 0.14309 * blue
    Y = 0.22249 * red + 0.71689 * green + 0.06062 * blue
    Z = 0.01393 * red + 0.09710 * green + 0.71419 * blue
    ratios = np.array([X / 0.964221, Y, Z / 0.825211])
    small = ratios <= 216 / 24389
    f = np.where(small, (24389 / 27 * ratios + 16) / 116, np.cbrt(ratios))
    a, b = 500 * (f[0] - f[1]), 200 * (f[1] - f[2])
    return float(np.hypot(max(5 - a, a - 25, 0), max(5 - b, b - 35, 0)))


def photometry(crop: NDArray[np.uint8]) -> dict[str, float]:
    """Compute the raw measures of light and colour.

    Parameters
    ----------
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        Aligned.

    Returns
    -------
    dict
        With Y the relative luminance of the face pixels, 0..1:

        ``luminance_mean``: mean of Y.  ``luminance_variance``: variance of Y.
        ``under_exposure``: share of Y at 25/255 or below.
        ``over_exposure``: share of Y at 247/255 or above.
        ``dynamic_range``: entropy of Y's histogram, 0..8 bits.
        ``illumination_uniformity``: overlap of the luminance histograms of the cheeks, 0..1.
        ``natural_colour``: distance of the cheeks' mean colour from skin, see `colour_distance`.
    """
    levels = luminance(crop)
    share = np.bincount(levels.ravel()[_face()], minlength=256) / len(_face())
    scale = np.arange(256) / 255
    mean = float(share @ scale)
    right, left = _cheeks()
    colour = (crop[right].mean((0, 1)) + crop[left].mean((0, 1))) / 2
    return {
        "luminance_mean": mean,
        "luminance_variance": float(share @ (scale - mean) ** 2),
        "under_exposure": float(share[: DARK + 1].sum()),
        "over_exposure": float(share[BRIGHT:].sum()),
        "dynamic_range": entropy(share),
        "illumination_uniformity": uniformity(levels[right], levels[left]),
        "natural_colour": colour_distance(colour),
    }


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Measure fine detail: ``ln(σ(LoG) / σ)``, Laplacian against picture standard deviation.

    LoG is a 3x3 Laplacian of the picture, smoothed by a Gaussian of 1 pixel against noise.
    Motion blurs along one line and leaves detail across it.  So the second difference along each
    of four lines counts too, raised by 2.0.  The lowest of the four raised values is above the
    Laplacian on 88 % of 71 sharp pictures of LFW.  With motion blur of an eighth of the face, it is
    0.6 below the Laplacian (0.0 for diagonal motion, in the median).
    Dividing by the standard deviation of the picture removes the effect of contrast, so dark
    pictures do not count as blurred.  Noise still counts as detail.

    Parameters
    ----------
    grey : ndarray, shape (H, W), uint8

    References
    ----------
    .. [1] J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a
           comparative study", ICPR 2000, doi:10.1109/ICPR.2000.903548 (variance of the
           Laplacian, LAPV)
    """
    import cv2

    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    detail = float(cv2.meanStdDev(cv2.Laplacian(smooth, cv2.CV_32F, ksize=3))[1][0, 0])
    lines = (cv2.filter2D(smooth, cv2.CV_32F, kernel) for kernel in _lines())
    along = min(float(cv2.meanStdDev(line)[1][0, 0]) for line in lines)
    detail = min(detail, along * math.exp(_LINE))
    whole = float(cv2.meanStdDev(smooth)[1][0, 0])
    return 0.5 * math.log((detail * detail + _ROUNDING) / (whole * whole + 1))


@cache
def _lines() -> tuple[NDArray[np.float32], ...]:
    """Kernels of the second difference along a row, a column and both diagonals."""
    row = np.array([[0, 0, 0], [1, -2, 1], [0, 0, 0]], np.float32)
    falling = np.diag([1.0, -2.0, 1.0]).astype(np.float32)
    return row, np.ascontiguousarray(row.T), falling, np.ascontiguousarray(falling[::-1])


def blockiness(grey: NDArray[np.uint8]) -> float:
    """Visibility of 8x8 JPEG block borders, from 0, in doublings (log2).

    The cross differences ``|x(i,j) - x(i,j+1) - x(i+1,j) + x(i+1,j+1)|``, clipped at 16, vanish
    along straight edges of the picture but not at block corners.  They are summed by
    column (row) modulo 8; the result is the mean over both axes of
    ``log2(largest / median of the others)``.  The largest sum represents the border, because the
    grid position is unknown after a crop or a rotation.  Resizing after compression destroys the
    grid, so the measure does not detect that compression.

    Parameters
    ----------
    grey : ndarray, shape (H, W), uint8

    References
    ----------
    .. [1] Y.-L. Chen and C.-T. Hsu, "Image tampering detection by blocking periodicity
           analysis in JPEG compressed images", MMSP 2008, doi:10.1109/MMSP.2008.4665184
    """
    x = grey.astype(np.int16)
    x = x[:, 1:] - x[:, :-1]
    cross = np.minimum(np.abs(x[1:] - x[:-1]), _STEEPEST)
    # One level per 16 pixels avoids a division by zero on flat pictures.
    floor = grey.size / _BLOCK / 16
    total = 0.0
    for axis in (0, 1):
        profile = cross.sum(axis, dtype=np.int64)
        whole = len(profile) // _BLOCK * _BLOCK
        if whole:
            phases = np.sort(profile[:whole].reshape(-1, _BLOCK).sum(0))
            total += math.log2((phases[-1] + floor) / (float(np.median(phases[:-1])) + floor))
    return total / 2


def texture(pixels: NDArray[np.uint8], face: Face) -> dict[str, float]:
    """Compute the raw measures of texture.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, 3), uint8, BGR
        The upright picture.
    face : Face

    Returns
    -------
    dict
        ``sharpness``: `sharpness` of the inner face, scaled to an eye distance of 70 pixels;
        enlarging a smaller face shows as blur.
        ``compression``: `blockiness` of up to 256x256 pixels around the face.

    Raises
    ------
    NoFaceDetected
        The landmarks are degenerate; those of an engine's samples never are.
    """
    import cv2

    transform = estimate(face.landmarks, TEMPLATE)
    if not transform:
        raise NoFaceDetected(f"the face cannot be aligned: {transform.failure}")
    shift = _SCALE * (transform.matrix[:, 2] - _CORNER)
    matrix = np.column_stack([_SCALE * transform.matrix[:, :2], shift])
    inner = cv2.cvtColor(warp(pixels, matrix, (_SIDE, _SIDE)), cv2.COLOR_BGR2GRAY)
    height, width = pixels.shape[:2]
    middle = (face.box[:2] + face.box[2:]) / 2
    x = int(np.clip(middle[0] - _WINDOW / 2, 0, max(width - _WINDOW, 0)))
    y = int(np.clip(middle[1] - _WINDOW / 2, 0, max(height - _WINDOW, 0)))
    around = cv2.cvtColor(pixels[y : y + _WINDOW, x : x + _WINDOW], cv2.COLOR_BGR2GRAY)
    return {
        "sharpness": sharpness(np.asarray(inner, np.uint8)),
        "compression": blockiness(np.asarray(around, np.uint8)),
    }
