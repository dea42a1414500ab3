"""Run a model: the part of an ONNX Runtime session that facecore uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from facecore.errors import FacecoreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Session", "run"]


class Session(Protocol):
    """The part of ``onnxruntime.InferenceSession`` that facecore uses; safe to share by threads."""

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Run the model."""
        ...

    def get_inputs(self) -> Sequence[Any]:
        """Return the inputs, each with ``name``, ``type`` and ``shape``."""
        ...

    def get_outputs(self) -> Sequence[Any]:
        """Return the outputs, described alike."""
        ...

    def get_providers(self) -> list[str]:
        """Return the execution providers in use, by precedence."""
        ...


def run(
    session: Session,
    outputs: Sequence[str],
    feed: Mapping[str, NDArray[np.float32]],
    name: str,
) -> list[NDArray[np.float32]]:
    """Run a model; what ONNX Runtime raises becomes a typed error.

    Parameters
    ----------
    session : Session
    outputs : sequence of str
        Names of the wanted outputs.
    feed : mapping of str to ndarray
        Input name -> tensor.
    name : str
        What the error message calls the model.

    Raises
    ------
    FacecoreError
        The run failed: the memory of the device was full, say.
    """
    try:
        return session.run(outputs, feed)
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        text = " ".join(str(error).split()) or type(error).__name__
        raise FacecoreError(
            f"{name}: the model failed: {text:.300}",
            "if memory is short, use smaller batches or pictures; or providers=None for the CPU",
        ) from error
