"""Degrade a photograph to the quality of the portrait on an identity card's chip.

Comparisons with such a portrait use a separate calibration.  Real chip portraits are personal
data and cannot be published, so that calibration is measured on degraded photographs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facecore.errors import NoFaceDetected
from facecore.face.detection import Face

__all__ = ["HEIGHT", "MAX_BYTES", "WIDTH", "id_portrait"]

WIDTH, HEIGHT = 102, 126  # pixels of the portrait in a second-generation Chinese identity card
MAX_BYTES = 2048  # the lower end of 2 to 5 KB

# The head is 207 of 358 pixels wide in the card's photograph, and the pupil distance is 0.42 head
# widths: 25 of 102 pixels.  The crown touches the top margin, shoulders fill the bottom.
_EYE_DISTANCE = 25.0
_EYE_LINE = 52.0
_CHROMA = 0.25
_SUPERSAMPLING = 4


def id_portrait(pixels: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
    """Simulate an identity card's chip portrait: crop, shrink, desaturate and compress.

    1. Crop head and shoulders: level the eye line, 52 of 126 rows below the top, with the eyes 25
       of 102 columns apart.  Areas outside the photograph are white, like a card's background.
    2. Average down to 102×126 pixels.
    3. Reduce the colour to a quarter.
    4. Compress as JPEG at the best quality that needs at most 2,048 bytes, and decode.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, 3), uint8, BGR
    face : Face
        The face to centre the portrait on.

    Returns
    -------
    ndarray, shape (126, 102, 3), uint8, BGR

    Raises
    ------
    NoFaceDetected
        The eyes coincide.

    Notes
    -----
    The geometry follows GA 461-2004, which specifies the card's photograph (358×441 pixels,
    face 207±14 wide, eyes at least 207 above the lower edge).  The chip's compression format
    (WLT, 1,024 bytes) has no public definition; JPEG at twice that size approximates it.
    """
    import cv2

    eyes = face.landmarks[:2].astype(np.float64)
    across = eyes[1] - eyes[0]
    distance = float(np.hypot(*across))
    if not distance > 1:  # a NaN fails too
        raise NoFaceDetected("the eyes coincide: no portrait can be cropped around them")
    scale = _SUPERSAMPLING * _EYE_DISTANCE / distance
    cos, sin = scale * across / distance
    turn = np.array([[cos, sin], [-sin, cos]])
    middle = _SUPERSAMPLING * np.array([WIDTH / 2, _EYE_LINE])
    matrix = np.column_stack([turn, middle - turn @ eyes.mean(0)])
    large = cv2.warpAffine(
        pixels,
        matrix,
        (WIDTH * _SUPERSAMPLING, HEIGHT * _SUPERSAMPLING),
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(255, 255, 255),
    )
    small = cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    faded = cv2.addWeighted(small, _CHROMA, grey, 1 - _CHROMA, 0)
    return _compressed(np.asarray(faded, np.uint8))


def _compressed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compress as JPEG at the best quality within `MAX_BYTES`, and decode."""
    import cv2

    low, high = 1, 95  # bisection: the size grows with the quality
    best = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, low])[1]
    while low < high:
        middle = (low + high + 1) // 2
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, middle])[1]
        if len(data) <= MAX_BYTES:
            low, best = middle, data
        else:
            high = middle - 1
    return np.asarray(cv2.imdecode(best, cv2.IMREAD_COLOR), np.uint8)
