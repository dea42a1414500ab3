"""Vectors of a set of pictures, and why some have none."""

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
    """What `embed_all` gives.

    Attributes
    ----------
    vectors : ndarray, shape (N, D), float32
        NaN where there is none.
    found : ndarray, shape (N,), bool
        Which there are.
    errors : mapping of int to FacecoreError
        Why a picture has none, by its index.
    """

    vectors: NDArray[np.float32]
    found: NDArray[np.bool_]
    errors: Mapping[int, FacecoreError]

    def counts(self) -> dict[str, int]:
        """How many pictures have no vector, by the error's code."""
        return dict(sorted(Counter(error.code for error in self.errors.values()).items()))


@dataclass(frozen=True, slots=True)
class IdPortraits:
    """Pictures made ID portraits (`facecore.face.id_portrait`), each when its turn comes."""

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
            except FacecoreError:  # an empty portrait, which has no face either
                yield np.full((HEIGHT, WIDTH, 3), 255, np.uint8)


def embed_all(
    engine: FaceEngine,
    pictures: Collection[Path] | IdPortraits,
    face: FaceChoice,
    progress: bool = False,
) -> Embedded:
    """Vectors of all pictures, in their order; no picture ends the run."""
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
