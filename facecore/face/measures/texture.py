"""Blur and compression, measured on grey pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from facecore.errors import NoFaceDetected
from facecore.face.alignment import TEMPLATE, estimate, warp
from facecore.face.detection import Face

__all__ = ["blockiness", "sharpness", "texture"]

# The part of the aligned crop in which sharpness is measured, at twice the crop's scale:
# from above the brows to below the mouth.
_SCALE, _SIDE = 2.0, 160
_CORNER = np.array([16.0, 28.0])

# Of one grey level: what rounding to 8 bits adds to a flat picture.
_ROUNDING = 0.02

# JPEG's blocks lie on the picture's own grid, so that compression is measured unresized; this
# many pixels around the face are enough.
_BLOCK, _WINDOW = 8, 256
_STEEPEST = 16  # grey levels; larger steps are the picture's own edges


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Share of fine detail: ``ln(σ(LoG) / σ)``, the Laplacian's deviation over the picture's own.

    LoG is the picture smoothed by a Gaussian of 1 pixel, against noise, under a 3x3 Laplacian.
    Dividing by the picture's deviation makes it free of contrast, so that a dark picture is
    not taken for a blurred one; noise still passes for detail.

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
    whole = float(cv2.meanStdDev(smooth)[1][0, 0])
    return 0.5 * math.log((detail * detail + _ROUNDING) / (whole * whole + 1))


def blockiness(grey: NDArray[np.uint8]) -> float:
    """How far the borders of 8x8 blocks stand out, from 0, in doublings.

    The cross differences ``|x(i,j) - x(i,j+1) - x(i+1,j) + x(i+1,j+1)|``, at most 16, vanish
    along straight edges of the picture and not at corners of blocks.  They are added up by
    their column (row) modulo 8; the answer is the mean over both axes of
    ``log2(largest / median of the others)``.  The largest stands for the border, as after a
    crop or a turn nobody knows where the grid lies.  A picture that was resized after it was
    compressed has no grid any more, and its compression is not seen.

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
    # One level in every sixteenth place keeps a flat picture from dividing by nothing.
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
    """Raw values of the measures of texture.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, 3), uint8, BGR
        The upright picture.
    face : Face

    Returns
    -------
    dict
        ``sharpness``: of the inner face, brought to eyes 70 pixels apart; a face that is
        smaller is enlarged, which shows as blur.
        ``compression``: `blockiness` of up to 256x256 pixels around the face.

    Raises
    ------
    NoFaceDetected
        The landmarks are degenerate, which no sample of an engine has.
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
