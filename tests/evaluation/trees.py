"""Helpers for small test sets: variants of a picture, and a picture without a face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, Any]


def variants(image: Array) -> list[Array]:
    """Return four variants of a picture of one person."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 8, 0.9)
    return [
        image,
        np.ascontiguousarray(image[:, ::-1]),
        np.asarray(cv2.convertScaleAbs(image, alpha=0.7, beta=10)),
        np.asarray(cv2.warpAffine(image, turn, (width, height))),
    ]


def write(path: Path, image: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


FACELESS = np.full((250, 250, 3), 127, np.uint8)
