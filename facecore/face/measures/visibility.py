"""What hides a face from every embedder, seen in the aligned crop: blur, covers, a negative.

Strangers whose pictures are poor in one of these ways look alike to a network.  So each of the four
measures alone can lower the unified score of quality and the recognisability.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from facecore.face.alignment import CROP_SIZE
from facecore.face.measures.occlusion import GREY, features, network
from facecore.face.measures.scales import MEASURES

__all__ = ["LIMITING", "detail", "inner_luma", "limits", "visibility"]

LIMITING = ("detail", "eyes_visible", "mouth_visible", "tone")

# Shifts along a row, a column and both diagonals, and the detail of ordinary faces there: medians
# over 4,847 training crops and 300 pictures of LFW.
_LINES = (((1, 0), -3.03), ((0, 1), -2.75), ((1, 1), -2.31), ((1, -1), -2.31))

# ln(blue / red) of the inner face from which skin is too blue to be that of a photograph, and what
# more of it takes off the log-odds.  Of 3,369 training crops 0.06 % are refused for their tone with
# it (0.03 % without), and of their negatives 0.2 % are not (0.5 % without).
_TOO_BLUE, _BLUE_WEIGHT = 0.15, 30.0

# Variance that rounding to 8 bits adds to a flat picture, in squared grey levels.
_ROUNDING = 0.01


def detail(crop: NDArray[np.uint8]) -> float:
    """Fine detail of the inner face along the line that has least.

    For each of four lines ``ln(σ(pixel - mean of its two neighbours) / σ(pixel))``, less that of
    ordinary faces.  Motion blurs along one line and leaves the detail across it, and an enlarged
    face has none in any.  The crop is what an embedder sees, so blur counts that shows only as a
    lack of the finest detail in a large picture.

    Parameters
    ----------
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        Aligned.
    """
    import cv2

    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[28:108, 16:96]  # brows to mouth
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (5, 5), 1.0)
    inner = smooth[4:-4, 4:-4]
    whole = float(cv2.meanStdDev(inner)[1][0, 0]) ** 2 + 1
    least = math.inf
    for (x, y), ordinary in _LINES:
        before = smooth[4 - y : 76 - y, 4 - x : 76 - x]
        after = smooth[4 + y : 76 + y, 4 + x : 76 + x]
        between = cv2.addWeighted(before, 0.5, after, 0.5, 0)
        along = cv2.norm(inner, between, cv2.NORM_L2SQR) / inner.size
        least = min(least, 0.5 * math.log((along + _ROUNDING) / whole) - ordinary)
    return least


@cache
def _inside() -> NDArray[np.intp]:
    """The cells of the small luma inside the face: brows to mouth, no hair, nothing beside it."""
    rows, columns = (np.mgrid[:GREY, :GREY] + 0.5) * (CROP_SIZE / GREY)
    return np.flatnonzero((((columns - 56) / 30) ** 2 + ((rows - 70) / 38) ** 2).ravel() <= 1)


def inner_luma(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Luma inside the face, of mean 0 and deviation 1.

    Neither how dark the skin is nor what is behind the face may count as a negative.

    Parameters
    ----------
    inputs : ndarray, shape (1176,), float32
        `facecore.face.measures.occlusion.features` of a crop.
    """
    luma = inputs[_inside()]
    luma = luma - luma.mean()
    scale = math.sqrt(float(luma @ luma) / luma.size) + 0.05
    return np.asarray(luma / np.float32(scale))


def _blueness(crop: NDArray[np.uint8]) -> float:
    """How far the skin is beyond `_TOO_BLUE`: a negative of a colour picture has blue skin."""
    import cv2

    blue, _, red, _ = cv2.mean(crop[32:100, 30:82])
    return max(0.0, math.log((blue + 8) / (red + 8)) - _TOO_BLUE)


def visibility(
    crop: NDArray[np.uint8], inputs: NDArray[np.float32] | None = None
) -> dict[str, float]:
    """Compute the raw measures of visibility.

    Parameters
    ----------
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        Aligned.
    inputs : ndarray, optional
        `facecore.face.measures.occlusion.features` of the crop, where the caller has them.

    Returns
    -------
    dict
        ``detail``: see `detail`.  ``eyes_visible``, ``mouth_visible``: logarithm of the odds that
        both eyes, and that the mouth, are free.  ``tone``: of the odds that light and dark are not
        exchanged, less for blue skin.  ``weights/training/visibility.py`` trains the networks
        behind these three.
    """
    inputs = features(crop) if inputs is None else inputs
    eyes, mouth = (-network("visibility", inputs)).tolist()
    (tone,) = (-network("tone", inner_luma(inputs))).tolist()
    tone -= _BLUE_WEIGHT * _blueness(crop)
    return {"detail": detail(crop), "eyes_visible": eyes, "mouth_visible": mouth, "tone": tone}


def limits(crop: NDArray[np.uint8], inputs: NDArray[np.float32] | None = None) -> dict[str, float]:
    """Scores of `LIMITING`, 0..100; parameters as in `visibility`."""
    return {name: MEASURES[name](raw) for name, raw in visibility(crop, inputs).items()}
