"""Presentation attack cues: each has a name, a formula and a physical cause.

Each cue maps pixels to one number.  Cues of fine structure need pixels at the camera's native
sampling, because resizing removes the moiré that they detect.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONTEXT",
    "DETAIL",
    "banding",
    "chroma_moire",
    "context",
    "cut",
    "detail",
    "frame_edges",
    "gamut",
    "grey",
    "grid_peaks",
    "high_frequency_loss",
    "measure",
    "power",
    "specular",
    "texture",
    "tonal_range",
]

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]

DETAIL = 96  # side of the square in which fine structure is measured, in native pixels
CONTEXT = 64  # longer side of the reduced surroundings, in pixels
_REACH = 2.0  # side of the surroundings, in sides of the face box
_TEXTURE = 48  # side of the square for binary patterns, the slowest cue


def cut(pixels: Pixels, centre: tuple[float, float], side: int) -> Pixels:
    """Crop a square at native sampling, mirroring pictures that are smaller than it.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, 3), uint8
    centre : tuple of float
        x and y; a square that would leave the picture is shifted inside.
    side : int
        In pixels.

    Returns
    -------
    ndarray, shape (side, side, 3), uint8
    """
    height, width = pixels.shape[:2]
    x = int(np.clip(round(centre[0] - side / 2), 0, max(width - side, 0)))
    y = int(np.clip(round(centre[1] - side / 2), 0, max(height - side, 0)))
    part = pixels[y : y + side, x : x + side]
    down, right = side - part.shape[0], side - part.shape[1]
    if down or right:
        part = np.pad(part, ((0, down), (0, right), (0, 0)), mode="symmetric")
    return part


def clipped(pixels: Pixels, box: NDArray[np.floating]) -> NDArray[np.float64]:
    """Clip a box (x1, y1, x2, y2) to the picture, keeping at least one pixel."""
    height, width = pixels.shape[:2]
    x1, x2 = np.clip(box[[0, 2]].astype(np.float64), 0, width)
    y1, y2 = np.clip(box[[1, 3]].astype(np.float64), 0, height)
    x1, y1 = min(x1, width - 1.0), min(y1, height - 1.0)
    return np.array([x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)])


def detail(pixels: Pixels, box: NDArray[np.floating]) -> Pixels:
    """Crop the centre of the face, (DETAIL, DETAIL, 3), at native sampling."""
    x1, y1, x2, y2 = clipped(pixels, box)
    return cut(pixels, ((x1 + x2) / 2, (y1 + y2) / 2), DETAIL)


def context(pixels: Pixels, box: NDArray[np.floating]) -> tuple[Pixels, NDArray[np.float64]]:
    """Crop the face with its surroundings, longer side `CONTEXT` pixels, and map the box to it."""
    import cv2

    half = _REACH / 2 * (box[2:] - box[:2]).astype(np.float64)
    middle = (box[2:] + box[:2]).astype(np.float64) / 2
    x1, y1, x2, y2 = clipped(pixels, np.concatenate([middle - half, middle + half])).round()
    part = pixels[int(y1) : int(max(y2, y1 + 1)), int(x1) : int(max(x2, x1 + 1))]
    skip = max(1, max(part.shape[:2]) * 4 // (5 * CONTEXT))  # averaging every pixel is slow
    full, part = max(part.shape[:2]), part[::skip, ::skip]
    ratio = CONTEXT / max(part.shape[:2])
    size = max(1, round(part.shape[1] * ratio)), max(1, round(part.shape[0] * ratio))
    kind = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    reduced = np.asarray(cv2.resize(part, size, interpolation=kind), np.uint8)
    return reduced, (box.astype(np.float64) - np.tile([x1, y1], 2)) * (CONTEXT / full)


@lru_cache(maxsize=4)
def _frequencies(side: int) -> tuple[Plane, Plane, NDArray[np.bool_]]:
    """Hann window, radial frequency in cycles per pixel, and mask of the bins where peaks count."""
    hann = np.hanning(side).astype(np.float32)
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    radius = np.hypot(fx, fy).astype(np.float32)
    # 8x8 JPEG blocks leave peaks at multiples of 1/8 on the axes; sharp edges leave streaks.
    reach = 2.5 / side
    axes = (np.abs(fx) < reach) | (np.abs(fy) < reach)
    eighths = [np.abs(np.abs(f) * 8 - np.rint(np.abs(f) * 8)) < 8 * reach for f in (fx, fy)]
    counted = (radius > 0.08) & ~(axes & eighths[0] & eighths[1])
    return np.outer(hann, hann), radius, counted


@lru_cache(maxsize=16)
def _band(side: int, low: float, high: float) -> NDArray[np.bool_]:
    radius = _frequencies(side)[1]
    return (radius > low) & (radius < high)


def grey(part: Pixels) -> Plane:
    """Convert a BGR square to luma, float32."""
    import cv2

    return np.asarray(cv2.cvtColor(part, cv2.COLOR_BGR2GRAY), np.float32)


def power(plane: Plane) -> Plane:
    """Power spectrum of a square plane with a Hann window; the half with fx >= 0."""
    spectrum = np.fft.rfft2((plane - plane.mean()) * _frequencies(len(plane))[0])
    return np.asarray(spectrum.real**2 + spectrum.imag**2, np.float32)


def _energy(spectrum: Plane, low: float, high: float) -> float:
    """Mean power in a frequency band, plus 100, about the 8-bit rounding noise of a flat square."""
    return float(spectrum[_band(len(spectrum), low, high)].mean()) + 100.0


def grid_peaks(spectrum: Plane) -> float:
    r"""Rise of the strongest spectral peaks above their neighbourhood.

    For the power spectrum :math:`P` of the grey square, averaged over 3x3 bins, the mean of
    the eight highest :math:`\ln P - \overline{\ln P}` (mean over 13x13 bins) above
    0.08 cycles per pixel.  Sub-pixels, halftone screens and their moiré are periodic; faces are
    not (Garcia & de Queiroz 2015, doi:10.1109/TIFS.2015.2411394).
    """
    import cv2

    counted = _frequencies(len(spectrum))[2]
    log = np.log(cv2.blur(np.fft.fftshift(spectrum, axes=0) + np.float32(1.0), (3, 3)))
    rise = np.fft.ifftshift(log - cv2.blur(log, (13, 13)), axes=0)[counted]
    return float(np.partition(rise, -8)[-8:].mean())


def chroma_moire(spectrum: Plane, colour_spectrum: Plane) -> float:
    r"""Coloured fine structure: :math:`\ln(E_{R-B} / E_{grey})`, 0.06 to 0.3 cycles per pixel.

    Sub-pixels and ink dots each have one colour, and a Bayer mosaic turns fine luminance detail
    into coloured fringes; skin and hair vary mostly in brightness (Patel, Han & Jain 2016,
    doi:10.1109/TIFS.2016.2578288, on moiré in colour channels).
    """
    return float(np.log(_energy(colour_spectrum, 0.06, 0.3) / _energy(spectrum, 0.06, 0.3)))


def high_frequency_loss(spectrum: Plane) -> float:
    r""":math:`\ln(E_{0.04..0.15} / E_{0.25..0.5})` of the grey square, cycles per pixel.

    A recapture is blurred twice (Li, Wang, Tan & Jain 2004, doi:10.1117/12.541955); a visible
    dot grid has the opposite effect.
    """
    return float(np.log(_energy(spectrum, 0.04, 0.15) / _energy(spectrum, 0.25, 0.5)))


def gamut(part: Pixels) -> float:
    r"""Spread of colours: :math:`\det(\mathrm{Cov}(C_b, C_r))^{1/4}`, in grey levels.

    Inks, paper and ambient light on glass reduce the range of colours (based on the chromatic
    moments of Wen, Han & Jain 2015, doi:10.1109/TIFS.2015.2400395).
    """
    import cv2

    sparse = np.ascontiguousarray(part[::2, ::2])
    chroma = cv2.cvtColor(sparse, cv2.COLOR_BGR2YCrCb)[..., 1:].reshape(-1, 2).astype(np.float32)
    chroma -= chroma.mean(axis=0)
    return float(max(np.linalg.det(chroma.T @ chroma / len(chroma)), 0.0) ** 0.25)


def _levels(part: Pixels, low: float, high: float) -> tuple[NDArray[np.intp], int, int]:
    """Histogram of green's 256 levels, and the levels at two quantiles."""
    counts = np.bincount(part[..., 1].ravel(), minlength=256)
    first, last = np.searchsorted(np.cumsum(counts), np.array([low, high]) * counts.sum())
    return counts, int(first), int(last)


def tonal_range(part: Pixels) -> float:
    """Range of green, 1st to 99th percentile, 0..1: ink, paper and glare raise the black level."""
    _, first, last = _levels(part, 0.01, 0.99)
    return (last - first) / 255


def banding(part: Pixels) -> float:
    """Share of unused green levels between the 10th and the 90th percentile.

    A medium with few tones, or stretched contrast, leaves gaps (the colour diversity of
    Wen, Han & Jain 2015, doi:10.1109/TIFS.2015.2400395).
    """
    counts, first, last = _levels(part, 0.1, 0.9)
    return float((counts[first : last + 1] == 0).mean())


def texture(part: Pixels) -> float:
    """Share of non-uniform local binary patterns (8 points, radius 1).

    Patterns with more than two transitions around the circle indicate noise and dots rather than
    edges and flat skin (Määttä, Hadid & Pietikäinen 2011, doi:10.1109/IJCB.2011.6117510).
    """
    plane = grey(cut(part, (len(part) / 2, len(part) / 2), _TEXTURE)).astype(np.float64)
    framed = np.pad(plane, 1)
    brighter = [plane <= _moved(_moved(framed, right).T, down).T for right, down in _CIRCLE]
    changes = np.sum([a != b for a, b in pairwise(brighter)], axis=0)
    return float((changes > 2).mean())


# Eight points on a circle, rounded as in scikit-image, the reference of the tests.
_ANGLES = np.arange(8) * (np.pi / 4)
_CIRCLE = list(zip(np.cos(_ANGLES).round(5), -np.sin(_ANGLES).round(5), strict=True))


def _moved(framed: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Sample each row `step` pixels (-1..1) to the right, dropping the frame's columns."""
    count = framed.shape[1] - 2
    low, high = 1 + int(np.floor(step)), 1 + int(np.ceil(step))
    place = np.arange(count) + step
    part = place - np.floor(place)
    return (1 - part) * framed[:, low : low + count] + part * framed[:, high : high + count]


def specular(surroundings: Pixels) -> float:
    """Share of pixels whose darkest channel is at least 230 of 255.

    A reflection on glass or gloss has the colour of the lamp, regardless of the surface below
    (dichromatic reflection: Shafer 1985, doi:10.1002/col.5080100409).
    """
    blue, green, red = (surroundings[..., channel] for channel in range(3))
    return float((np.minimum(np.minimum(blue, green), red) >= 230).mean())


def frame_edges(surroundings: Pixels, box: NDArray[np.floating]) -> float:
    """Length of straight edges beside the face, in heights of its box.

    Sums the longest four segments of a probabilistic Hough transform (Matas, Galambos & Kittler
    2000, doi:10.1006/cviu.1999.0831) within 15° of the picture's sides whose midpoint is outside
    the face box.  Bezels and sheets of paper have such edges, but door frames do too.
    """
    import cv2

    x1, y1, x2, y2 = box
    height = max(float(y2 - y1), 1.0)
    edges = cv2.Canny(surroundings, 60, 150)
    found = cv2.HoughLinesP(edges, 1, np.pi / 60, 14, minLineLength=0.45 * height, maxLineGap=2)
    if found is None:
        return 0.0
    ends = found.reshape(-1, 4).astype(np.float64)
    way = np.abs(ends[:, 2:] - ends[:, :2])
    middle = (ends[:, 2:] + ends[:, :2]) / 2
    straight = way.min(axis=1) <= np.tan(np.deg2rad(15)) * way.max(axis=1)
    inside = (middle > (x1, y1)).all(axis=1) & (middle < (x2, y2)).all(axis=1)
    lengths = np.sort(np.hypot(*way[straight & ~inside].T))[-4:]
    return float(lengths.sum()) / height


def measure(pixels: Pixels, box: NDArray[np.floating]) -> dict[str, float]:
    """Measure all cues of one face.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, 3), uint8, BGR
        The picture at the camera's native sampling.
    box : ndarray, shape (4,)
        x1, y1, x2, y2.

    Returns
    -------
    dict of str to float
        The keys are `facecore.models.manifest.LIVENESS_CUES`.
    """
    part = detail(pixels, box)
    surroundings, inner = context(pixels, box)
    spectrum = power(grey(part))
    colour_spectrum = power(part[..., 2].astype(np.float32) - part[..., 0])
    return {
        "grid_peaks": grid_peaks(spectrum),
        "chroma_moire": chroma_moire(spectrum, colour_spectrum),
        "high_frequency_loss": high_frequency_loss(spectrum),
        "gamut": gamut(part),
        "tonal_range": tonal_range(part),
        "banding": banding(part),
        "texture": texture(part),
        "specular": specular(surroundings),
        "frame_edges": frame_edges(surroundings, inner),
    }
