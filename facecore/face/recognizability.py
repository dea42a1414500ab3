"""Whether the embedder can read a face: far from the place where unreadable faces gather.

A network that cannot read a face still gives it a vector.  The vectors of blurred, dark, covered
or turned faces lie close together, so that strangers pass as one person (Deng et al. 2022,
"Harnessing Unrecognizable Faces", arXiv:2106.04112).  A small network of one hidden layer tells
such vectors from those of readable faces.  `facecore.evaluation.recognizability` fits it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facecore.errors import UnrecognizableFace
from facecore.face.alignment import CROP_SIZE

if TYPE_CHECKING:
    from facecore.face.detection import Face
    from facecore.models.specs import RecognizabilitySpec

__all__ = ["Gate", "encode_weights", "likely_reason", "read_weights", "recognizability"]

Weights = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def encode_weights(weights: Weights) -> str:
    """Write the network as text: float16, little-endian, base64."""
    parts = [np.asarray(part, "<f2").tobytes() for part in weights]
    return base64.b64encode(b"".join(parts)).decode()


def read_weights(spec: RecognizabilitySpec) -> Weights:
    """The network of a manifest: (D, H), (H,), (H,) and (1,), float32."""
    hidden = spec.hidden
    first, bias, last, offset = np.split(spec.numbers(), [-2 * hidden - 1, -hidden - 1, -1])
    return first.reshape(-1, hidden), bias, last, offset


def recognizability(vectors: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
    """Recognisability of unit vectors (N, D), 0..100: ``100 / (1 + exp(-z))``."""
    first, bias, last, offset = weights
    z = np.maximum(vectors @ first + bias, 0) @ last + offset
    return np.asarray(50 + 50 * np.tanh(z / 2), np.float32)


class Gate:
    """Refuses faces that the embedder cannot read.

    Parameters
    ----------
    spec : RecognizabilitySpec
        The embedder's section of the manifest.
    limit : float, optional
        Least recognisability, 0..100; by default the pack's.
    """

    def __init__(self, spec: RecognizabilitySpec, limit: float | None = None) -> None:
        self.limit = spec.limit if limit is None else limit
        self._weights = read_weights(spec)

    def scores(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Recognisability of unit vectors (N, D), 0..100."""
        return recognizability(vectors, self._weights)

    def check(self, score: float, crop: NDArray[np.uint8], face: Face) -> None:
        """Raise `UnrecognizableFace`, with the likely reason, where `score` is below the limit.

        Parameters
        ----------
        score : float
            Of `scores`.
        crop : ndarray, shape (112, 112, 3), uint8, BGR
            Aligned.
        face : Face
        """
        if score < self.limit:
            reason, hint = likely_reason(crop, face)
            raise UnrecognizableFace(
                f"the face cannot be recognised (recognisability {score:.0f}, limit "
                f"{self.limit:.0f}): {reason}",
                hint,
            )


def likely_reason(crop: NDArray[np.uint8], face: Face) -> tuple[str, str]:
    """Words for what most likely makes a face unreadable, and for what to do.

    Parameters
    ----------
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        Aligned.
    face : Face

    Returns
    -------
    reason, hint : str
    """
    import cv2

    from facecore.face.measures import MEASURES
    from facecore.face.measures.occlusion import occlusion
    from facecore.face.measures.pixels import photometry, sharpness

    light, cover = photometry(crop), occlusion(crop)
    grey = np.asarray(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), np.uint8)
    inner = grey[28:108, 16:96]  # brows to mouth
    found = {
        "dark": MEASURES["luminance_mean"](light["luminance_mean"])
        if light["luminance_mean"] < 0.3
        else 100.0,
        "bright": MEASURES["over_exposure"](light["over_exposure"]),
        "flat": MEASURES["luminance_variance"](light["luminance_variance"]),
        "covered": MEASURES["key_occlusion"](cover["key_occlusion"]),
        "small": 100 * face.size / (CROP_SIZE / 2),
        "blurred": MEASURES["sharpness"](sharpness(inner)),
        "turned": 100 - abs(face.roll) if abs(face.roll) > 45 else 100.0,
    }
    return _REASONS[min(found, key=lambda name: found[name])]


_REASONS = {
    "dark": ("it is probably too dark", "use a picture with more light on the face"),
    "bright": ("it is probably too bright", "use a picture with less light on the face"),
    "flat": ("its contrast is probably too low", "use a picture with more contrast"),
    "covered": (
        "it is probably covered",
        "use a picture that shows eyes, nose and mouth, without sunglasses or a mask",
    ),
    "small": ("it is probably too small", "use a picture in which the face is larger"),
    "blurred": ("it is probably blurred", "use a sharp picture of a still face"),
    "turned": ("it is probably turned", "use a picture in which the face stands upright"),
}
