"""What each cell of the detector's heads is to answer for a scene's labels, in YuNet's format.

Labels are rows of 15 numbers: kind (`FACE`, `IGNORED`, 0 for none), box, five landmarks, which are
NaN where they are unknown.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 256  # pixels of a scene
OUTPUTS = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)]
CELLS = sum((SIDE // stride) ** 2 for stride in (8, 16, 32))
FACE, IGNORED = 1, 2
SMALLEST = 12.0  # pixels; smaller faces are not asked for
FRAMED = 0.12  # of the scenes, as the wide pass of a detector sees a picture


def placed(
    image: NDArray[np.uint8], labels: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The scene mirrored or not, with none to three quarter turns (half of them none).

    Now and then it is half as large in a black frame, as the wide pass shows a picture.
    """
    rows = labels[labels[:, 0] > 0].copy()
    if rng.random() < FRAMED:
        small = cv2.resize(image, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
        image = cv2.copyMakeBorder(small, *[SIDE // 4] * 4, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        image = np.asarray(image, np.uint8)
        rows[:, 1:] = rows[:, 1:] / 2 + SIDE // 4
        rows[(rows[:, 3:5] - rows[:, 1:3]).prod(axis=1) < SMALLEST**2, 0] = IGNORED
    if rng.random() < 0.5:
        image = image[:, ::-1]
        rows[:, [1, 3]] = SIDE - 1 - rows[:, [3, 1]]
        rows[:, 5::2] = SIDE - 1 - rows[:, 5::2]
        rows[:, 5:] = rows[:, 5:].reshape(-1, 5, 2)[:, [1, 0, 2, 4, 3]].reshape(-1, 10)
    for _ in range(rng.choice(4, p=[0.5, 0.17, 0.16, 0.17])):
        image = np.rot90(image)
        rows = rows[:, [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13]]
        rows[:, [2, 4]] = SIDE - 1 - rows[:, [4, 2]]
        rows[:, 6::2] = SIDE - 1 - rows[:, 6::2]
    return image, rows


def targets_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Per cell: 1, 0, or -1 for not asked; the face's size in strides; box and landmarks.

    Landmarks are NaN where they are unknown.
    """
    answer = np.zeros((CELLS, 16), np.float32)
    start = 0
    for stride, low, high in ((8, 0, 52), (16, 44, 128), (32, 112, 1e9)):
        side = SIDE // stride
        part = answer[start : start + side * side]
        start += side * side
        grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
        middles = (grid + 0.5) * stride
        for row in rows[rows[:, 0] == IGNORED]:
            half, centre = (row[3:5] - row[1:3]) * 0.55, (row[1:3] + row[3:5]) / 2
            part[(np.abs(middles - centre) <= half + stride / 2).all(axis=1), 0] = -1
        for row in rows[rows[:, 0] == FACE]:  # the largest first
            sides, centre = row[3:5] - row[1:3], (row[1:3] + row[3:5]) / 2
            size = float(np.sqrt(sides.prod()))
            if not low / 1.7 < size < high * 1.6:
                continue
            away = np.hypot(*(middles - centre).T)
            near = away <= max(0.75 * stride, min(2.7 * stride, 0.75 * size))
            part[near & (part[:, 0] == 0), 0] = -1
            if not low < size < high:
                continue
            here = away <= min(1.5 * stride, 0.45 * size)
            here[away.argmin()] = True
            part[here, 0], part[here, 1] = 1, size / stride
            part[here, 2:4] = centre / stride - grid[here]
            part[here, 4:6] = np.log(sides / stride)
            part[here, 6:] = row[5:] / stride - np.tile(grid[here], 5)
    return answer
