"""Embed aligned crops as unit vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError
from facecore.models.inference import run, to_tensor

if TYPE_CHECKING:
    from facecore.models.inference import Session
    from facecore.models.manifest import EmbedderSpec

__all__ = ["Embedder"]


class Embedder:
    """Maps aligned faces to unit vectors, which cosine similarity compares.

    Parameters
    ----------
    session : Session
    spec : EmbedderSpec
        The embedder section of the manifest.
    """

    def __init__(self, session: Session, spec: EmbedderSpec) -> None:
        self._session = session
        self._spec = spec

    @property
    def dimension(self) -> int:
        """Dimension D of the vectors."""
        return self._spec.output.dimension

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed aligned crops.

        Parameters
        ----------
        crops : ndarray, shape (N, 112, 112, 3), uint8
            BGR, from `facecore.face.alignment.align`.

        Returns
        -------
        ndarray, shape (N, D), float32
            Unit vectors.

        Raises
        ------
        FacecoreError
            The network failed, or its output is zero or not finite.
        """
        if not len(crops):
            return np.empty((0, self.dimension), np.float32)
        tensor = to_tensor(crops, self._spec.input)
        step = self._spec.max_batch or len(crops)
        source, target = self._spec.input.name, [self._spec.output.name]
        parts = [
            run(self._session, target, {source: tensor[i : i + step]}, self._spec.file)[0]
            for i in range(0, len(crops), step)
        ]
        vectors = parts[0] if len(parts) == 1 else np.concatenate(parts)
        norms = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
        if not (norms.min() > 0 and norms.max() < np.inf):  # a NaN fails both
            raise FacecoreError(
                "the output of the embedder is zero or not finite",
                "check the pack: facecore weights verify",
            )
        return np.asarray(vectors / norms, np.float32)
