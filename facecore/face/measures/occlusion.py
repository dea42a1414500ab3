"""Face occlusion, estimated by a small network in NumPy."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from facecore.face.alignment import CROP_SIZE, TEMPLATE

__all__ = ["CELLS", "GREY", "coverage", "features", "key_areas", "network", "occlusion"]

CELLS = 7  # rows and columns of the map; each cell is 16x16 pixels
GREY, _CHROMA = 28, 14
_OVERSAMPLING = 4


def features(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute the network input: 28x28 normalised luma and 14x14 of both chroma channels.

    Parameters
    ----------
    crop : ndarray, shape (112, 112, 3), uint8, BGR

    Returns
    -------
    ndarray, shape (1176,), float32
    """
    import cv2

    small = cv2.resize(crop, (GREY, GREY), interpolation=cv2.INTER_AREA)
    ycc = cv2.cvtColor(small, cv2.COLOR_BGR2YCrCb)
    luma = ycc[..., 0].astype(np.float32)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(luma))
    luma = (luma - mean) / (deviation + 4)
    chroma = cv2.resize(ycc[..., 1:], (_CHROMA, _CHROMA), interpolation=cv2.INTER_AREA)
    tint = (chroma.astype(np.float32) - 128) / 16
    return np.concatenate([luma.ravel(), tint.transpose(2, 0, 1).ravel()])


@cache
def _weights(name: str) -> tuple[NDArray[np.float32], ...]:
    with files("facecore.face.measures").joinpath(f"{name}.npz").open("rb") as stream:
        stored = np.load(stream, allow_pickle=False)
        return tuple(stored[part].astype(np.float32) for part in ("w1", "b1", "w2", "b2"))


def network(name: str, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply the network in ``<name>.npz``, of one hidden ReLU layer, to `features` or a part."""
    w1, b1, w2, b2 = _weights(name)
    return np.asarray(np.maximum(inputs @ w1 + b1, 0) @ w2 + b2, np.float32)


def coverage(
    crop: NDArray[np.uint8], inputs: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Estimate the covered share of each cell of the aligned crop, (7, 7) float32, 0..1.

    `inputs` are the `features` of the crop, if the caller has them.

    The network has one hidden ReLU layer.  ``weights/training/occlusion.py`` trains it on faces
    overlaid with shapes, glasses, masks and pieces of other pictures.
    """
    logits = np.clip(network("occlusion", features(crop) if inputs is None else inputs), -30, 30)
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32).reshape(CELLS, CELLS)


@cache
def _areas() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cell weights, summing to 1, of the face (49,) and of its key areas (4, 49)."""
    side = CROP_SIZE * _OVERSAMPLING
    rows, columns = (np.mgrid[:side, :side] + 0.5) / _OVERSAMPLING

    def weights(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
        cell = side // CELLS
        shares = inside.reshape(CELLS, cell, CELLS, cell).mean((1, 3)).ravel()
        return np.asarray(shares / shares.sum())

    def box(
        middle: NDArray[np.float64], half_width: float, half_height: float
    ) -> NDArray[np.float64]:
        across, down = np.abs(columns - middle[0]), np.abs(rows - middle[1])
        return weights((across < half_width) & (down < half_height))

    face = weights(((columns - 56) / 36) ** 2 + ((rows - 70) / 46) ** 2 <= 1)
    eyes = [box(TEMPLATE[i], 11, 7) for i in (0, 1)]
    return face, np.stack([*eyes, box(TEMPLATE[2], 9, 9), box(TEMPLATE[3:].mean(0), 16, 8)])


def key_areas() -> NDArray[np.float64]:
    """Weights of the cells in right eye, left eye, nose and mouth: (4, 49), rows sum to 1."""
    return _areas()[1]


def occlusion(
    crop: NDArray[np.uint8], inputs: NDArray[np.float32] | None = None
) -> dict[str, float]:
    """Compute the raw measures of occlusion.

    Parameters
    ----------
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        Aligned.
    inputs : ndarray, optional
        `features` of the crop, if the caller has them.

    Returns
    -------
    dict
        ``occlusion``: covered share of the face.
        ``key_occlusion``: covered share of the most covered key area: right eye, left eye, nose
        or mouth.
    """
    cells = coverage(crop, inputs).ravel()
    face, keys = _areas()
    return {"occlusion": float(face @ cells), "key_occlusion": float((keys @ cells).max())}
