"""The forward pass of SSR-Net, a small public network for age and gender, in NumPy.

T.-Y. Yang and others, *SSR-Net: A Compact Soft Stagewise Regression Network for Age Estimation*,
IJCAI 2018.  The weights are the authors' (shamangary/SSR-Net, Apache-2.0), in Keras's file format.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SIDE = 64  # pixels of the input
BINS = 3  # of each of the three stages
EPSILON = 1e-3  # Keras's default in batch normalisation


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def convolve(x: Array, kernel: Array, bias: Array) -> Array:
    """Unpadded convolution of (N, H, W, C) by (h, w, C, D)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    columns = windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1)
    return columns @ kernel.reshape(-1, kernel.shape[3]) + bias


def pool(x: Array, size: int, reduce: Callable[..., Array]) -> Array:
    """Pool non-overlapping squares; drop incomplete ones at the border."""
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    squares = x[:, : rows * size, : columns * size]
    return reduce(squares.reshape(n, rows, size, columns, size, channels), axis=(2, 4))


class SSRNet:
    """One network of the authors' 3-3-3 layout, both of its lambdas 1.

    Parameters
    ----------
    path : Path
        The weights.
    span : float
        Factor of the sum over the stages: 101 for age in years, 1 for gender.

    Raises
    ------
    ImportError
        h5py is not installed.
    FileNotFoundError
    """

    def __init__(self, path: Path, span: float) -> None:
        import h5py

        self._span = span
        with h5py.File(path) as file:
            # group/layer/kernel:0, where group and layer have the same name
            self._weights = {
                layer: {name.partition(":")[0]: np.asarray(data) for name, data in group.items()}
                for layer in file
                for group in file[layer].values()
            }
        self._stage = "pred_age_stage" if "pred_age_stage1" in self._weights else "pred_stage"

    def __call__(self, crops: NDArray[np.uint8], batch: int = 64) -> Array:
        """Predict (N,) for BGR crops (N, H, W, 3): years, or 0 (female) to 1 (male)."""
        resized = np.stack([cv2.resize(crop, (SIDE, SIDE)) for crop in crops]).astype(np.float32)
        parts = [self._forward(resized[i : i + batch]) for i in range(0, len(crops), batch)]
        return np.concatenate(parts)

    def _dense(self, x: Array, name: str) -> Array:
        layer = self._weights[name]
        return x @ layer["kernel"] + layer["bias"]

    def _conv(self, x: Array, number: int) -> Array:
        layer = self._weights[f"conv2d_{number}"]
        return convolve(x, layer["kernel"], layer["bias"])

    def _stream(
        self, x: Array, first: int, activate: Callable[[Array], Array], reduce: Callable[..., Array]
    ) -> list[Array]:
        """Return the maps of stages 3, 2 and 1 as vectors; stage 1 uses the coarsest map."""
        maps = []
        for number in range(first, first + 4):
            x = self._conv(x, number)
            norm = self._weights[f"batch_normalization_{number}"]
            scale = norm["gamma"] / np.sqrt(norm["moving_variance"] + EPSILON)
            x = activate((x - norm["moving_mean"]) * scale + norm["beta"])
            if number < first + 3:
                x = pool(x, 2, reduce)
            maps.append(x)
        # Layers 9 to 14 narrow the maps, by stage and in turn for the two streams.
        own = 10 if first == 1 else 9
        vectors = []
        for stage, (level, size) in enumerate(((3, 1), (1, 4), (0, 8))):
            narrow = relu(self._conv(maps[level], own + 2 * stage))
            vectors.append(pool(narrow, size, reduce).reshape(len(x), -1))
        return vectors

    def _forward(self, x: Array) -> Array:
        averaged = self._stream(x, 1, relu, np.mean)
        peaked = self._stream(x, 5, np.tanh, np.max)
        total = np.zeros(len(x), np.float32)
        width = np.ones(len(x), np.float32)
        for stage, (left, right) in enumerate(zip(peaked, averaged, strict=True), 1):
            # Each stage divides a bin of the previous stage into three bins, whose width
            # and places the network shifts (equations 3 to 6 of the paper).
            first = 3 * stage - 2
            mixed = relu(self._dense(left, f"dense_{first}")) * relu(
                self._dense(right, f"dense_{first + 1}")
            )
            features = relu(self._dense(mixed, f"dense_{first + 2}"))
            shares = relu(self._dense(features, f"{self._stage}{stage}"))
            shifts = np.tanh(self._dense(features, f"local_delta_stage{stage}"))
            stretch = np.tanh(self._dense(left * right, f"delta_s{stage}"))[:, 0]
            width = width / (BINS * (1 + stretch))
            total += ((np.arange(BINS) + shifts) * shares).sum(1) * width
        return total * self._span
