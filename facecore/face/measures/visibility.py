"""Measure blur, covers and negatives, which hide a face from every embedder, in the aligned crop.

Strangers whose pictures share one of these defects look alike to a network.  So each of the four
measures alone can lower the unified quality score and the recognisability.
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

# Shifts along a row, a column and both diagonals, and the detail of ordinary faces along each:
# medians over 4,847 training crops and 300 pictures of LFW.
_LINES = (((1, 0), -3.03), ((0, 1), -2.75), ((1, 1), -2.31), ((1, -1), -2.31))

# ln(blue / red) of the inner face above which skin is too blue for a photograph, and the reduction
# of the log-odds per unit above it.  With this reduction, the tone refuses 0.06 % of 3,369 training
# crops (0.03 % without) and accepts 0.2 % of their negatives (0.5 % without).
_TOO_BLUE, _BLUE_WEIGHT = 0.15, 30.0

# Variance that rounding to 8 bits adds to a flat picture, in squared grey levels.
_ROUNDING = 0.01


def detail(crop: NDArray[np.uint8]) -> float:
    """Measure the fine detail of the inner face along the line that has least.

    Computes ``ln(σ(pixel - mean of its two neighbours) / σ(pixel))`` for each of four lines, less
    that of ordinary faces.  Motion blurs along one line and leaves the detail across it.  An
    enlarged face has no fine detail along any line.  The crop is what an embedder sees.  It also
    shows blur that in a large picture is only a lack of the finest detail.

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
    """Flat indices of the small luma inside the face: brows to mouth, no hair, no background."""
    rows, columns = (np.mgrid[:GREY, :GREY] + 0.5) * (CROP_SIZE / GREY)
    return np.flatnonzero((((columns - 56) / 30) ** 2 + ((rows - 70) / 38) ** 2).ravel() <= 1)


def inner_luma(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalise the luma inside the face to mean 0 and deviation 1.

    Neither dark skin nor the background may count as a negative.

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
    """Measure how far the skin exceeds `_TOO_BLUE`: in a colour negative, skin is blue."""
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
        `facecore.face.measures.occlusion.features` of the crop, if the caller has them.

    Returns
    -------
    dict
        ``detail``: see `detail`.
        ``eyes_visible``: log-odds that both eyes are free.
        ``mouth_visible``: log-odds that the mouth is free.
        ``tone``: log-odds that light and dark are not exchanged, less for blue skin.

        ``weights/training/visibility.py`` trains the networks behind the last three.
    """
    inputs = features(crop) if inputs is None else inputs
    eyes, mouth = (-network("visibility", inputs)).tolist()
    (tone,) = (-network("tone", inner_luma(inputs))).tolist()
    tone -= _BLUE_WEIGHT * _blueness(crop)
    return {"detail": detail(crop), "eyes_visible": eyes, "mouth_visible": mouth, "tone": tone}


def limits(crop: NDArray[np.uint8], inputs: NDArray[np.float32] | None = None) -> dict[str, float]:
    """Compute the scores of `LIMITING`, 0..100; parameters as in `visibility`."""
    return {name: MEASURES[name](raw) for name, raw in visibility(crop, inputs).items()}
