"""A picture whose face has been found: what every later stage works on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from facecore.face.detection import Face

__all__ = ["FaceSample"]


@dataclass(frozen=True, slots=True, eq=False)
class FaceSample:
    """One face of one picture, ready for every model (a biometric sample of ISO/IEC 2382-37).

    `facecore.FaceEngine.sample` makes one; every method of the engine and of a gallery takes it
    in the place of an image, so that a picture that is compared, searched and judged for quality
    is decoded, detected and embedded once.

    Attributes
    ----------
    pixels : ndarray, shape (H, W, 3), uint8, BGR
        The upright picture.
    face : Face
        In pixels of `pixels`.
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        The face, aligned.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    face: Face
    crop: NDArray[np.uint8] = field(repr=False)
    # The vector by contract id, once a model has made it.
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict, init=False, repr=False)
