"""Convert pixels to the input tensor that a manifest specifies, and run the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from facecore._utils.forks import FORK_LOCK
from facecore.errors import FacecoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facecore.models.specs import InputSpec

__all__ = ["ProcessSession", "Session", "run", "to_tensor"]


class Session(Protocol):
    """The part of ``onnxruntime.InferenceSession`` that facecore uses; threads may share it."""

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Run the model."""
        ...

    def get_inputs(self) -> Sequence[Any]:
        """Return the inputs, each with ``name``, ``type`` and ``shape``."""
        ...

    def get_outputs(self) -> Sequence[Any]:
        """Return the outputs, each with ``name``, ``type`` and ``shape``."""
        ...

    def get_providers(self) -> list[str]:
        """Return the execution providers in use, by precedence."""
        ...


class ProcessSession:
    """A `Session` that a forked process opens again: a fork loses the threads of an open one."""

    def __init__(self, create: Callable[[], Session]) -> None:
        self._create = create
        self._session, self._process = create(), os.getpid()

    def _here(self) -> Session:
        if self._process != os.getpid():
            with FORK_LOCK:
                if self._process != os.getpid():
                    self._session = self._create()
                    self._process = os.getpid()
        return self._session

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Run the model."""
        return self._here().run(output_names, input_feed)

    def get_inputs(self) -> Sequence[Any]:
        """Return the inputs."""
        return self._here().get_inputs()

    def get_outputs(self) -> Sequence[Any]:
        """Return the outputs."""
        return self._here().get_outputs()

    def get_providers(self) -> list[str]:
        """Return the execution providers in use."""
        return self._here().get_providers()


def to_tensor(
    images: NDArray[np.uint8],
    spec: InputSpec,
    *,
    canvas: tuple[int, int] | None = None,
    margin: int = 0,
) -> NDArray[np.float32]:
    """Reorder and normalise pixels: ``x = (pixel - mean) / std``.

    Parameters
    ----------
    images : ndarray, shape (N, h, w, 3), uint8
        BGR pixels.
    spec : InputSpec
        Layout, channel order, mean and std of the model's input.
    canvas : (int, int), optional
        Height H and width W of the result, black around the images; by default the size of the
        images.
    margin : int
        Pixels of the canvas above and to the left of each image; requires `canvas`.

    Returns
    -------
    ndarray, shape (N, 3, H, W) or (N, H, W, 3), float32, C-contiguous
    """
    count, height, width, channels = images.shape
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    rows, columns = slice(margin, margin + height), slice(margin, margin + width)
    make = np.zeros if canvas else np.empty
    outer = canvas or (height, width)
    reverse = spec.channels == "RGB"
    if spec.layout == "NCHW":
        tensor = make((count, channels, *outer), np.float32)
        for image, planes in zip(images, tensor, strict=True):
            _fill(planes[:, rows, columns], image, reverse)
        mean, std = mean[:, None, None], std[:, None, None]
    else:
        tensor = make((count, *outer, channels), np.float32)
        tensor[:, rows, columns] = images[..., ::-1] if reverse else images
    if mean.any():
        tensor -= mean
    if (std != 1).any():
        tensor /= std
    return tensor


def run(
    session: Session,
    outputs: Sequence[str],
    feed: Mapping[str, NDArray[np.float32]],
    name: str,
) -> list[NDArray[np.float32]]:
    """Run a model; convert ONNX Runtime's exceptions to FacecoreError.

    Parameters
    ----------
    session : Session
    outputs : sequence of str
        Names of the wanted outputs.
    feed : mapping of str to ndarray
        Input name -> tensor.
    name : str
        Name of the model in error messages.

    Raises
    ------
    FacecoreError
        The run failed, for example because the memory of the device was full.
    """
    try:
        return session.run(outputs, feed)
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        text = " ".join(str(error).split()) or type(error).__name__
        raise FacecoreError(
            f"{name}: the model failed: {text:.300}",
            "if memory runs out, use smaller batches or pictures, or providers=None for the CPU",
        ) from error


def _fill(planes: NDArray[np.float32], image: NDArray[np.uint8], reverse: bool) -> None:
    """Copy (h, w, 3) to (3, h, w): OpenCV splits channels faster than NumPy transposes axes."""
    import cv2

    parts = cv2.split(image)
    for plane, part in zip(planes, reversed(parts) if reverse else parts, strict=True):
        plane[:] = part
