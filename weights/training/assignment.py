"""Build the targets of every cell of the detector's heads, in YuNet's format.

Labels are rows of 15 numbers: kind (`FACE`, `IGNORED`, 0 for none), box and five landmarks.
Unknown landmarks are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 256  # pixels of a scene
OUTPUTS = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)]
STRIDES = np.repeat([8, 16, 32], [(SIDE // stride) ** 2 for stride in (8, 16, 32)])
CELLS = len(STRIDES)
FACE, IGNORED = 1, 2
SMALLEST = 12.0  # pixels; smaller faces are ignored
FRAMED = 0.08  # share of scenes that are shown small, as in the detector's wide pass
MEETS = 0.25  # least intersection over union of the teacher's box and a labelled face
SEEN = 0.5  # the teacher sees a labelled face from this score on
BELIEVED = 0.1  # the teacher's faces without a label are corrected from this score on
SURE = 0.9  # target probability of faces that the teacher misses


def placed(
    image: NDArray[np.uint8], labels: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Mirror a scene at random, and shrink it at random.

    A shrunk scene is half as large, in a black frame, as in the detector's wide pass.
    """
    rows = labels[labels[:, 0] > 0].copy()
    if rng.random() < FRAMED:
        small = cv2.resize(image, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
        image = cv2.copyMakeBorder(small, *[SIDE // 4] * 4, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        image = np.asarray(image, np.uint8)
        rows[:, 1:] = rows[:, 1:] / 2 + SIDE // 4
        rows[(rows[:, 3:5] - rows[:, 1:3]).prod(axis=1) < SMALLEST**2, 0] = IGNORED
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
        rows[:, [1, 3]] = SIDE - 1 - rows[:, [3, 1]]
        rows[:, 5::2] = SIDE - 1 - rows[:, 5::2]
        rows[:, 5:] = rows[:, 5:].reshape(-1, 5, 2)[:, [1, 0, 2, 4, 3]].reshape(-1, 10)
    return image, rows


def targets_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the labels per cell: 1, 0, or -1 for ignored; the face's size in strides; its place.

    The place is box and landmarks; unknown landmarks are NaN.
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


@dataclass
class Targets:
    """Targets of every cell for a batch of N scenes; float32.

    Attributes
    ----------
    asked : ndarray, shape (N, CELLS)
        1, or 0 for ignored cells.
    odds : ndarray, shape (N, CELLS, 2)
        Target probabilities of class and objectness.
    notice : ndarray, shape (N, CELLS)
        0..1, weight of the probabilities: the teacher's score, or 1 for a face that it misses.
    face : ndarray, shape (N, CELLS)
        0..1, weight of box and landmarks.
    place : ndarray, shape (N, CELLS, 14)
        Box and landmarks.
    scale : ndarray, shape (N, CELLS, 14)
        Factor that makes errors of `place` relative to the face's size; 0 for unknown landmarks.
    """

    asked: NDArray[np.float32]
    odds: NDArray[np.float32]
    notice: NDArray[np.float32]
    face: NDArray[np.float32]
    place: NDArray[np.float32]
    scale: NDArray[np.float32]


def _grid() -> NDArray[np.float32]:
    """Column and row of every cell, (CELLS, 2)."""
    cells = [np.mgrid[: SIDE // stride, : SIDE // stride] for stride in (8, 16, 32)]
    pairs = [cell[::-1].reshape(2, -1).T for cell in cells]
    return np.concatenate(pairs).astype(np.float32)


def targets(said: NDArray[np.float32], rows: Sequence[NDArray[np.float32]] | None) -> Targets:
    """Take the teacher's answers where the labels agree with them, and the labels elsewhere.

    Parameters
    ----------
    said : ndarray, shape (N, CELLS, 16)
        The teacher's answers: logits of class and objectness, four box and ten landmark numbers.
    rows : sequence of N arrays, or None
        The labels; None trusts every answer of the teacher.
    """
    odds = 1 / (1 + np.exp(-said[..., :2].clip(-30, 30)))
    score = np.sqrt(odds.prod(-1))
    place = said[..., 2:].copy()
    place[..., 2:4] = place[..., 2:4].clip(-6, 6)
    size = np.exp((place[..., 2] + place[..., 3]) / 2)  # in strides
    scale = np.broadcast_to(4 / size.clip(1)[..., None], place.shape)
    wanted = Targets(
        np.ones_like(score),
        odds,
        score.copy(),
        np.where(score > 0.3, score, 0),
        place,
        scale.copy(),
    )
    for k, labels in enumerate(rows if rows is not None else ()):
        _correct(wanted, k, labels)
    return wanted


def _correct(wanted: Targets, k: int, rows: NDArray[np.float32]) -> None:
    """Correct the teacher's answers in `wanted` for scene `k` by the labels."""
    grid, stride = _grid(), STRIDES[:, None].astype(np.float32)
    score, place = wanted.notice[k], wanted.place[k]
    middle, half = (place[:, :2] + grid) * stride, np.exp(place[:, 2:4]) * stride / 2
    low = np.maximum((middle - half)[:, None], rows[:, 1:3])
    high = np.minimum((middle + half)[:, None], rows[:, 3:5])
    shared = np.maximum(high - low, 0).prod(-1)
    own = 4 * half.prod(-1)[:, None]
    meets = shared / (own + (rows[:, 3:5] - rows[:, 1:3]).prod(-1) - shared)
    meets, faces = meets * (rows[:, 0] == FACE), rows[:, 0] == FACE
    seen = (faces & ((meets >= MEETS) & (score >= SEEN)[:, None])).any(axis=0)
    agrees = (meets * seen).max(axis=1, initial=0) >= MEETS
    aside = ((shared / own)[:, rows[:, 0] == IGNORED].max(axis=1, initial=0) > 0.4) & ~agrees
    told = targets_of(rows[~seen])
    # `other`: labelled faces that the teacher misses; `false`: its faces without a label.
    other = (told[:, 0] > 0) & ~(agrees & (score > 0.3))
    wanted.asked[k] = np.where((aside | (told[:, 0] < 0)) & ~agrees & ~other, 0, 1)
    false = ~agrees & (score > BELIEVED)
    wanted.odds[k] = np.where(other[:, None], SURE, wanted.odds[k] * ~false[:, None])
    wanted.notice[k] = np.where(other, 1, score)
    wanted.face[k] = np.where(other, 1, wanted.face[k] * agrees) * wanted.asked[k]
    place[other] = np.nan_to_num(told[other, 2:])
    scale = 4 / told[other, 1].clip(1)[:, None] * np.isfinite(told[other, 2:])
    wanted.scale[k][other] = scale
    if not seen.any():
        return
    # Faces that the teacher sees keep its probabilities, with the label's box and landmarks.
    row = rows[(meets * seen).argmax(axis=1)]
    centre, sides = (row[:, 1:3] + row[:, 3:5]) / 2, row[:, 3:5] - row[:, 1:3]
    labelled = np.concatenate(
        [centre / stride - grid, np.log(sides.clip(1) / stride), row[:, 5:] / stride], axis=1
    )
    labelled[:, 4:] -= np.tile(grid, 5)
    right = (agrees & ~other)[:, None] & np.isfinite(labelled)
    place[right] = labelled[right]
