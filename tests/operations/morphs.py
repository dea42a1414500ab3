"""Morph two faces into one: the attack on comparisons that are not transitive."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from facecore import FaceEngine

Pixels = NDArray[np.uint8]


def morph(engine: FaceEngine, a: Pixels, b: Pixels, share: float = 0.5) -> Pixels:
    """Warp two pictures of one size to the landmarks between theirs, and blend them."""
    height, width = a.shape[:2]
    of_a, of_b = _points(engine, a), _points(engine, b)
    between = (1 - share) * of_a + share * of_b
    warped = [_warped(a, between, of_a), _warped(b, between, of_b)]
    assert (height, width) == b.shape[:2]
    return np.asarray(cv2.addWeighted(warped[0], 1 - share, warped[1], share, 0), np.uint8)


def _points(engine: FaceEngine, picture: Pixels) -> NDArray[np.float32]:
    """Return the landmarks, an outline estimated from them, and points on the picture's edge."""
    right, left, nose, right_mouth, left_mouth = engine.largest_face(picture).landmarks
    eyes, mouth, across = (right + left) / 2, (right_mouth + left_mouth) / 2, left - right
    down = mouth - eyes
    outline = [
        eyes - 0.9 * down,
        mouth + 0.7 * down,
        right - 0.55 * across,
        left + 0.55 * across,
        right_mouth - 0.45 * across,
        left_mouth + 0.45 * across,
    ]
    y, x = np.array(picture.shape[:2]) - 1
    edge = [(0, 0), (x, 0), (0, y), (x, y), (x / 2, 0), (x / 2, y), (0, y / 2), (x, y / 2)]
    return np.array([right, left, nose, right_mouth, left_mouth, *outline, *edge], np.float32)


def _warped(
    picture: Pixels, to: NDArray[np.float32], points: NDArray[np.float32], step: int = 8
) -> Pixels:
    """Thin-plate warp that moves `points` of the picture to the places `to`."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0 : height + step : step, 0 : width + step : step]
    coarse = np.column_stack([columns.ravel(), rows.ravel()]).astype(np.float32)
    source = RBFInterpolator(to, points)(coarse).reshape(*rows.shape, 2).astype(np.float32)
    grid = np.mgrid[0:height, 0:width].astype(np.float32) / step
    full = cv2.remap(source, grid[1], grid[0], cv2.INTER_LINEAR)
    return np.asarray(
        cv2.remap(picture, full, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )
