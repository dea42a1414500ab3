"""Embed a set of pictures and record which ones fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facecore import images
from facecore.engine import FaceChoice, FaceEngine
from facecore.errors import FacecoreError
from facecore.face.id_portrait import HEIGHT, WIDTH, id_portrait

__all__ = ["Embedded", "IdPortraits", "embed_all"]


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Result of `embed_all`.

    Attributes
    ----------
    vectors : ndarray, shape (N, D), float32
        A row of NaN for a picture without a vector.
    found : ndarray, shape (N,), bool
        Whether each picture has a vector.
    errors : mapping of int to FacecoreError
        Index of a picture without a vector -> error.
    """

    vectors: NDArray[np.float32]
    found: NDArray[np.bool_]
    errors: Mapping[int, FacecoreError]

    def counts(self) -> dict[str, int]:
        """Count the pictures without a vector by error code."""
        return dict(sorted(Counter(error.code for error in self.errors.values()).items()))


@dataclass(frozen=True, slots=True)
class IdPortraits:
    """Pictures converted lazily to ID portraits (`facecore.face.id_portrait`)."""

    engine: FaceEngine
    paths: Sequence[Path]
    face: FaceChoice

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for path in self.paths:
            try:
                pixels = images.load(path, self.engine.limits)
                yield id_portrait(pixels, self.engine.sample(pixels, face=self.face).face)
            except FacecoreError:  # yield a blank portrait, in which no face is found
                yield np.full((HEIGHT, WIDTH, 3), 255, np.uint8)


def embed_all(
    engine: FaceEngine,
    pictures: Collection[Path] | IdPortraits,
    face: FaceChoice,
    progress: bool = False,
) -> Embedded:
    """Embed all pictures in order; a picture without a vector does not stop the run."""
    errors: dict[int, FacecoreError] = {}
    vectors = np.empty((len(pictures), 0), np.float32)
    for i, answer in enumerate(engine.embed_many(pictures, progress=progress, face=face)):
        if isinstance(answer, FacecoreError):
            errors[i] = answer
            continue
        if not vectors.shape[1]:
            vectors = np.full((len(pictures), len(answer)), np.nan, np.float32)
        vectors[i] = answer
    if not vectors.shape[1]:
        dimension = engine.pack.embedder.output.dimension
        vectors = np.full((len(pictures), dimension), np.nan, np.float32)
    found = np.ones(len(pictures), bool)
    found[list(errors)] = False
    return Embedded(vectors, found, errors)
