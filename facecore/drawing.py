"""Results drawn into pictures, where people would rather look than read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facecore.errors import InvalidParameter
from facecore.face.detection import Face
from facecore.files import write_whole

__all__ = ["GREEN", "RED", "draw_faces", "write_image"]

GREEN, RED = (96, 200, 64), (64, 64, 230)  # BGR


def draw_faces(
    image: NDArray[np.uint8], faces: Iterable[Face], colour: tuple[int, int, int] = GREEN
) -> NDArray[np.uint8]:
    """Copy of a picture with the box, the landmarks and the confidence of each face.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        BGR.
    faces : iterable of Face
    colour : tuple of int
        BGR, 0..255.
    """
    import cv2

    drawn = np.ascontiguousarray(image).copy()
    thickness = max(1, round(max(drawn.shape[:2]) / 400))
    for face in faces:
        x1, y1, x2, y2 = (round(float(v)) for v in face.box)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)
        for x, y in face.landmarks:
            centre = (round(float(x)), round(float(y)))
            cv2.circle(drawn, centre, 2 * thickness, colour, -1, cv2.LINE_AA)
        label = f"{face.confidence:.2f}"
        cv2.putText(
            drawn, label, (x1, y1 - 3 * thickness), cv2.FONT_HERSHEY_SIMPLEX,
            0.45 * thickness, colour, thickness, cv2.LINE_AA,
        )  # fmt: skip
    return drawn


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a picture, whole or not at all, in the format that its name ends with.

    Raises
    ------
    InvalidParameter
        The format is unknown, or the file cannot be written.
    """
    import cv2

    try:
        written, coded = cv2.imencode(path.suffix, image)
    except cv2.error:
        written = False
    if not written:
        raise InvalidParameter(
            f"{path.name!r} does not end in the name of a picture format", "use .png or .jpg"
        )
    write_whole(path, coded.tobytes())
