"""Light and colour of the face, measured on the aligned crop."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from facecore.face.alignment import CROP_SIZE, TEMPLATE

__all__ = ["colour_distance", "entropy", "linear", "luminance", "photometry", "uniformity"]

# Inside the aligned crop the face is an ellipse: temples to temples, hairline to chin.  It
# stands in for the hull of OFIQ's 98 landmarks.
_CENTRE, _AXES = (56.0, 70.0), (36.0, 46.0)

# Levels of the 8-bit luminance that count as under- and over-exposed (OFIQ).
DARK, BRIGHT = 25, 247

# OFIQ compares the cheeks with 256 bins on squares of 34x34 pixels; in ours of 10x10 most
# bins would be empty by chance, so eight levels share one.
_LEVELS_PER_BIN = 8


@cache
def _face() -> NDArray[np.intp]:
    """Flat indices of the crop's pixels inside the face."""
    rows, columns = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    x, y = (columns - _CENTRE[0]) / _AXES[0], (rows - _CENTRE[1]) / _AXES[1]
    return np.flatnonzero((x * x + y * y).ravel() <= 1)


@cache
def _cheeks() -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns of OFIQ's cheek squares: 0.3 eye distances wide, half-way to the mouth."""
    (right, left), mouth = TEMPLATE[:2], TEMPLATE[3:].mean(0)
    side = int(0.3 * (left[0] - right[0]))
    top = int(right[1] + (mouth[1] - right[1]) / 2)
    rows = slice(top, top + side)
    first, last = int(right[0]), int(left[0])
    return (rows, slice(first - side, first)), (rows, slice(last, last + side))


def linear(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Gamma-coded sRGB to linear light, both 0..1 (IEC 61966-2-1)."""
    v = np.asarray(values, np.float64)
    return np.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)


@cache
def _weights() -> NDArray[np.float32]:
    """Linear light of every 8-bit value times its channel's share, 0..255; (1, 256, 3) BGR."""
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
    """Shannon entropy in bits of a histogram that adds up to 1."""
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
    """How far a mean colour lies from that of skin: outside a* 5..25 and b* 5..35.

    The colour is taken to CIELAB (D50) as OFIQ does it, with 24389/27 where OFIQ has 24289/27,
    which only very dark colours notice.  Where a* or b* is negative OFIQ
    answers 100 at once; here the distance goes on growing, so that a grey picture, whose a*
    is zero up to rounding, does not jump.

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
    """Raw values of the measures of light and colour.

    Parameters
    ----------
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        Aligned.

    Returns
    -------
    dict
        With Y the relative luminance of the face's pixels, 0..1:

        ``luminance_mean``: mean of Y.  ``luminance_variance``: variance of Y.
        ``under_exposure``: share of Y at 25/255 or below.
        ``over_exposure``: share of Y at 247/255 or above.
        ``dynamic_range``: entropy of Y's histogram, 0..8 bits.
        ``illumination_uniformity``: overlap of the histograms of both cheeks, 0..1.
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
