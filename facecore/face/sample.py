"""A picture whose face has been found: what every later stage works on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from facecore.face.detection import Face
from facecore.images.picture import Picture

__all__ = ["FaceSample"]


@dataclass(frozen=True, slots=True, eq=False)
class FaceSample:
    """One face of one picture, ready for every model (a biometric sample of ISO/IEC 2382-37).

    `facecore.FaceEngine.sample` makes one; every method of the engine and of a gallery takes it
    in the place of an image, so that a picture that is compared, searched and judged for quality
    is detected and embedded once.

    Attributes
    ----------
    picture : Picture
        Upright; `pixels` decodes it whole, where that has not been done.
    face : Face
        In pixels of the whole picture.
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        The face, aligned.
    others : tuple of Face
        The other faces that were found with this one, largest first.  `FaceEngine.samples` finds
        every face of the picture; `FaceEngine.sample` looks for one, and may miss small faces
        beside it.
    """

    picture: Picture = field(repr=False)
    face: Face
    crop: NDArray[np.uint8] = field(repr=False)
    others: tuple[Face, ...] = field(default=(), repr=False)
    # The vector by contract id, once a model has made it.
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict, init=False, repr=False)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The upright picture, (H, W, 3) uint8, BGR."""
        return self.picture.pixels()
