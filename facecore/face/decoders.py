"""Decode detector outputs to candidate faces: one decoder per family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from facecore.errors import PackCorrupt

__all__ = ["FAMILIES", "Candidates", "Family", "Passes", "retinaface", "scrfd", "yunet"]

Candidates = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Points (N, 7, 2), two corners of the box and five landmarks, and scores (N,)."""

Outputs: TypeAlias = Sequence[NDArray[np.float32]]
Decoder: TypeAlias = Callable[[Outputs, tuple[int, int], tuple[int, ...], float], Candidates]


@dataclass(frozen=True, slots=True)
class Passes:
    """Longest sides, in pixels, of the pictures that a network of dynamic input size receives.

    Attributes
    ----------
    coarse : int
        First pass; larger pictures are reduced to this.
    small : int
        First pass; smaller pictures are enlarged to this.
    fine : int
        Second pass, for small faces in pictures larger than `coarse`.
    wide : int
        Last pass, padded by half as much on all sides, for faces that extend beyond the frame.
    """

    coarse: int
    small: int
    fine: int
    wide: int


@dataclass(frozen=True, slots=True)
class Family:
    """Decoder and parameters shared by detectors of one architecture.

    Attributes
    ----------
    decode : callable
        ``decode(outputs, (height, width) of the input, strides, threshold)``.
    passes : Passes
    overlap : float
        Suppression drops boxes whose intersection over union with a better one exceeds this.
    blend : float or None
        Average boxes whose overlap with the best one exceeds this; None: keep the best box.
    upright : float
        Confidence that faces found upside down or on their side seldom reach; 0 if not measured.
    """

    decode: Decoder
    passes: Passes
    overlap: float
    blend: float | None
    upright: float = 0.0


def yunet(
    outputs: Outputs, size: tuple[int, int], strides: tuple[int, ...], threshold: float
) -> Candidates:
    """Decode YuNet's heads.

    A cell at (column, row) of stride S predicts score = sqrt(cls * obj), centre =
    (column + dx, row + dy) * S, size = exp(dw, dh) * S, landmark = (column + x, row + y) * S
    (Wu et al. 2023, doi:10.1007/s11633-023-1423-y).

    Parameters
    ----------
    outputs : sequence of ndarray, float32
        cls (A, 1), obj (A, 1), bbox (A, 4) and kps (A, 10), each for every stride; exports with a
        batch axis have a leading 1.
    size : (int, int)
        Height and width of the network's input, multiples of the largest stride.
    strides : tuple of int
        Pixels per cell of each feature map.
    threshold : float
        Lowest score of a candidate, above 0.

    Returns
    -------
    points : ndarray, shape (N, 7, 2), float32
        Top-left and bottom-right corners of the box, and five landmarks, in pixels of the input.
    scores : ndarray, shape (N,), float32
        0..1.

    Raises
    ------
    PackCorrupt
        The outputs do not have one candidate per cell.
    """
    height, width = size
    found = [np.empty((0, 15), np.float32)]
    for k, stride in enumerate(strides):
        heads = [head.reshape(-1, head.shape[-1]) for head in outputs[k :: len(strides)]]
        cells = (width // stride) * (height // stride)
        _check(all(len(head) == cells for head in heads), stride, size)
        cls, obj, bbox, kps = heads
        # A factor in 0..1 is at least its product with another; NaN fails every comparison.
        (likely,) = np.nonzero(np.minimum(cls, obj)[:, 0] >= 0.99 * threshold**2)
        if not likely.size:
            continue
        scores = np.sqrt(cls[likely].clip(0, 1) * obj[likely].clip(0, 1))
        cell = np.stack([likely % (width // stride), likely // (width // stride)], axis=1)
        cell = cell.astype(np.float32)
        box, points = bbox[likely], kps[likely]
        centre = (cell + box[:, :2]) * stride
        half = np.exp(np.minimum(box[:, 2:], 10.0)) * (stride / 2)
        points = (points + np.tile(cell, 5)) * stride
        rows = np.concatenate([centre - half, centre + half, points, scores], axis=1)
        found.append(rows[scores[:, 0] >= threshold])
    return _candidates(found)


def scrfd(
    outputs: Outputs, size: tuple[int, int], strides: tuple[int, ...], threshold: float
) -> Candidates:
    """Decode SCRFD's heads.

    Each anchor of the cell at (column, row) of stride S is centred at (column, row) * S, with no
    half-cell offset.  It predicts the distances from there to the left, upper, right and lower
    edges of the box, and the offsets to each landmark, in units of S.  The anchors of a cell, two
    in the published models, are consecutive.  The score is a probability (Guo et al. 2021,
    arXiv:2105.04714; deepinsight/insightface, ``model_zoo/scrfd.py``).

    Parameters
    ----------
    outputs : sequence of ndarray, float32
        score (A, 1), box (A, 4) and landmarks (A, 10), each for every stride; exports with a
        batch axis have a leading 1.
    size, strides, threshold
        As in `yunet`.

    Returns
    -------
    points, scores : ndarray
        As in `yunet`.

    Raises
    ------
    PackCorrupt
        The outputs do not have a whole number of anchors per cell.
    """
    height, width = size
    found = [np.empty((0, 15), np.float32)]
    for k, stride in enumerate(strides):
        score, box, kps = (head.reshape(-1, head.shape[-1]) for head in outputs[k :: len(strides)])
        columns = width // stride
        anchors, rest = divmod(len(score), columns * (height // stride))
        _check(anchors > 0 and not rest and len(score) == len(box) == len(kps), stride, size)
        (likely,) = np.nonzero(score[:, 0] >= threshold)
        cell = likely // anchors
        centre = np.stack([cell % columns, cell // columns], axis=1).astype(np.float32)
        start, stop = centre - box[likely, :2], centre + box[likely, 2:]
        points = np.tile(centre, 5) + kps[likely]
        placed = np.concatenate([start, stop, points], axis=1) * np.float32(stride)
        found.append(np.concatenate([placed, score[likely].clip(0, 1)], axis=1))
    return _candidates(found)


# Sides of the two priors of a cell, in pixels of the input, by stride.
RETINAFACE_PRIORS = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
_CENTRE_VARIANCE, _SIZE_VARIANCE = np.float32(0.1), np.float32(0.2)


def retinaface(
    outputs: Outputs, size: tuple[int, int], strides: tuple[int, ...], threshold: float
) -> Candidates:
    """Decode RetinaFace's heads.

    Each cell has two priors at its centre (`RETINAFACE_PRIORS`).  A prior of side P predicts
    centre = prior + 0.1 * P * (dx, dy), size = P * exp(0.2 * (dw, dh)), landmark =
    prior + 0.1 * P * (x, y) (Deng et al. 2020, arXiv:1905.00641; the variances and priors of
    biubug6/Pytorch_Retinaface, ``layers/functions/prior_box.py`` and ``utils/box_utils.py``).

    Parameters
    ----------
    outputs : sequence of ndarray, float32
        box (1, A, 4), probabilities of background and face (1, A, 2) and landmarks (1, A, 10), with
        all strides concatenated.
    size, strides, threshold
        As in `yunet`.

    Returns
    -------
    points, scores : ndarray
        As in `yunet`.

    Raises
    ------
    PackCorrupt
        The outputs do not have two priors per cell.
    """
    height, width = size
    parts = []
    for stride in strides:
        columns, rows = -(-width // stride), -(-height // stride)
        sides = RETINAFACE_PRIORS[stride]
        cell = np.repeat(np.arange(columns * rows), len(sides))
        middle = (np.stack([cell % columns, cell // columns], axis=1) + 0.5) * stride
        parts.append(np.column_stack([middle, np.tile(sides, columns * rows)]))
    priors = np.concatenate(parts).astype(np.float32)
    box, confidence, kps = (head.reshape(-1, head.shape[-1]) for head in outputs)
    fits = len(priors) == len(box) == len(confidence) == len(kps)
    _check(fits, max(strides), size)
    (likely,) = np.nonzero(confidence[:, 1] >= threshold)
    middle, side = priors[likely, :2], priors[likely, 2:]
    centre = middle + _CENTRE_VARIANCE * side * box[likely, :2]
    half = side * np.exp(np.minimum(_SIZE_VARIANCE * box[likely, 2:], 10.0)) / 2
    points = np.tile(middle, 5) + _CENTRE_VARIANCE * side * kps[likely]
    scores = confidence[likely, 1:].clip(0, 1)
    rows_found = np.concatenate([centre - half, centre + half, points, scores], axis=1)
    return _candidates([rows_found.astype(np.float32, copy=False)])


def _candidates(found: Sequence[NDArray[np.float32]]) -> Candidates:
    rows = np.concatenate(found)
    return rows[:, :14].reshape(-1, 7, 2), rows[:, 14]


def _check(fits: bool, stride: int, size: tuple[int, int]) -> None:
    if not fits:
        raise PackCorrupt(
            f"the detector's outputs at stride {stride} do not fit an input of "
            f"{size[1]}x{size[0]} pixels",
            "check the architecture, the strides and the order of the outputs in pack.toml",
        )


# The cost of a pass and the face sizes it finds depend on the family.
#
# YuNet-n takes 0.08 GFLOP at 320x320, so even 1,920 pixels are cheap.  Its landmarks jitter from
# cell to cell; averaging them separates genuine from impostor comparisons better
# (Bazarevsky et al. 2019, arXiv:1907.05047).
#
# Of 257 pictures of LFW, 90 % have a confidence above `upright`, and none has it upside down.  With
# compact's detector, 84 % of 200 have it, and none upside down.
#
# SCRFD and RetinaFace were trained and published at 640 pixels, where they take 0.5 to 34 GFLOP.
# Time grows with the pixels: a pass at 1,280 takes four times as long as one at 640, a pass at
# 1,920 seven to nine times.  At 1,280, the smallest anchor of 16 pixels still finds a face of 24
# pixels in a picture of 1,920.  Their publishers keep the best box unchanged.
FAMILIES: dict[str, Family] = {
    "yunet": Family(yunet, Passes(320, 160, 1920, 160), overlap=0.3, blend=0.5, upright=0.92),
    "scrfd": Family(scrfd, Passes(640, 640, 1280, 320), overlap=0.4, blend=None),
    "retinaface": Family(retinaface, Passes(640, 640, 1280, 320), overlap=0.4, blend=None),
}
