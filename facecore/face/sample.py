"""Detected face with its picture and aligned crop: the input of every later stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore.face.detection import Face
from facecore.images.picture import Picture

__all__ = ["FaceSample"]


@dataclass(frozen=True, slots=True, eq=False)
class FaceSample:
    """One face of one picture, ready for every model (a biometric sample of ISO/IEC 2382-37).

    `facecore.FaceEngine.sample` creates one.  All methods of the engine and of a gallery accept
    it in place of an image, except those that only detect.  Detection, embedding and quality then
    run once per picture, however many methods use it.

    Attributes
    ----------
    picture : Picture
        Upright; `pixels` decodes it at full resolution on first use.
    face : Face
        In pixels of the full picture.
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        The aligned face.
    others : tuple of Face
        The other detected faces, largest first.  `FaceEngine.samples` finds every face of the
        picture; `FaceEngine.sample` looks for one, and may miss small faces next to it.
    """

    picture: Picture = field(repr=False)
    face: Face
    crop: NDArray[np.uint8] = field(repr=False)
    others: tuple[Face, ...] = field(default=(), repr=False)
    # Caches: at most one `Quality`; vectors and their recognisability by contract id.
    qualities: list[Any] = field(default_factory=list, init=False, repr=False)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict, init=False, repr=False)
    scores: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The upright picture, (H, W, 3) uint8, BGR."""
        return self.picture.pixels()

    @property
    def recognizability(self) -> float | None:
        """Score of how well the embedder can read the face, 0..100.

        None before the face is embedded.  A pack without a recognisability network rates the crop
        alone.  If several packs embedded the face, the lowest score counts.
        """
        return min(self.scores.values(), default=None)
