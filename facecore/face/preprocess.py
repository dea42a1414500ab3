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
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    if spec.layout == "NCHW":
        tensor = _planes(images, reverse=spec.channels == "RGB")
        mean, std = mean[:, None, None], std[:, None, None]
    else:
        if spec.channels == "RGB":
            images = images[..., ::-1]
        tensor = images.astype(np.float32, order="C")
    if mean.any():
        tensor -= mean
    if (std != 1).any():
        tensor /= std
    return tensor


def _planes(images: NDArray[np.uint8], reverse: bool) -> NDArray[np.float32]:
    """(N, H, W, 3) to (N, 3, H, W): OpenCV parts the channels faster than NumPy turns the axes."""
    import cv2

    count, height, width, channels = images.shape
    tensor = np.empty((count, channels, height, width), np.float32)
    for image, planes in zip(images, tensor, strict=True):
        parts = cv2.split(image)
        for plane, part in zip(planes, reversed(parts) if reverse else parts, strict=True):
            plane[:] = part
    return tensor
