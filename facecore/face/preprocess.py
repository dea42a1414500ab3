"""Pixels to the tensor that a model's manifest asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from facecore.models.specs import InputSpec

__all__ = ["to_tensor"]


def to_tensor(images: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Reorder and normalise: ``x = (pixel - mean) / std``.

    Parameters
    ----------
    images : ndarray, shape (N, H, W, 3), uint8
        BGR pixels.
    spec : InputSpec
        Layout, channel order, mean and std of the model's input.

    Returns
    -------
    ndarray, shape (N, 3, H, W) or (N, H, W, 3), float32, C-contiguous
    """
    if spec.channels == "RGB":
        images = images[..., ::-1]
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    if spec.layout == "NCHW":
        images = images.transpose(0, 3, 1, 2)
        mean, std = mean[:, None, None], std[:, None, None]
    tensor = images.astype(np.float32, order="C")
    if mean.any():
        tensor -= mean
    if (std != 1).any():
        tensor /= std
    return tensor
