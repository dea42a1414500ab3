"""Score how well the embedder can read a face, and refuse faces that it cannot read.

An embedder also maps a face that it cannot read to a vector.  The vectors of blurred, dark, covered
or turned faces lie close together, so impostor pairs of these faces pass (Deng et al. 2022,
"Harnessing Unrecognizable Faces", arXiv:2106.04112).  A network with one hidden layer separates
unreadable faces from readable ones.  Its inputs are the vector and measures of the crop, because a
vector alone shows motion blur and covers badly.  `facecore.evaluation.recognizability` fits the
network.  The scores of `facecore.face.measures.visibility` cap its output for every vector.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facecore.errors import UnrecognizableFace
from facecore.face.alignment import CROP_SIZE

if TYPE_CHECKING:
    from facecore.face.detection import Face
    from facecore.models.specs import RecognizabilitySpec

__all__ = [
    "CLEAR",
    "Gate",
    "allowance",
    "encode_weights",
    "features",
    "likely_reason",
    "read_weights",
    "recognizability",
]

CLEAR = 95.0  # recognisability from which one of two faces is enough to tell strangers apart

Weights = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def features(
    crop: NDArray[np.uint8], inputs: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Measure covers, detail along four lines, and light: the network's inputs from the pixels.

    Parameters
    ----------
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        Aligned.
    inputs : ndarray, optional
        `facecore.face.measures.occlusion.features` of the crop, if the caller has them.

    Returns
    -------
    ndarray, shape (63,), float32
        The covered share of 7x7 cells (`facecore.face.measures.occlusion.coverage`).  For each of
        four directions, the logarithm of the mean difference of neighbours over that of pixels
        three apart, and the logarithm of the latter over the contrast.  The least of the first
        four logarithms.  Mean luma, contrast and its logarithm, and two colour
        differences.
    """
    import cv2

    from facecore.face.measures.occlusion import coverage

    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[28:108, 16:96]  # brows to mouth
    middle = grey[6:-6, 6:-6]
    mean, spread = (float(value[0, 0]) for value in cv2.meanStdDev(middle))

    def differ(right: int, down: int) -> float:
        moved = grey[6 + down : 74 + down, 6 + right : 74 + right]
        return float(cv2.norm(middle, moved, cv2.NORM_L1)) / middle.size + 0.2

    near = np.array([differ(x, y) for x, y in _LINES])
    far = np.array([differ(3 * x, 3 * y) for x, y in _LINES])
    blue, green, red, _ = cv2.mean(crop)
    light = (mean / 128, spread / 50, np.log(spread + 1), (red - blue) / 50, (green - red) / 50)
    fine = np.log(near / far)
    shape = (*fine, *np.log(far / (spread + 1)), float(fine.min()))
    return np.array([*coverage(crop, inputs).ravel(), *shape, *light], np.float32)


_LINES = ((1, 0), (0, 1), (1, 1), (1, -1))


def encode_weights(weights: Weights) -> str:
    """Write the network as text: float16, little-endian, base64."""
    parts = [np.asarray(part, "<f2").tobytes() for part in weights]
    return base64.b64encode(b"".join(parts)).decode()


def read_weights(spec: RecognizabilitySpec) -> Weights:
    """Read the network from a manifest: (D + 63, H), (H,), (H,) and (1,), float32."""
    hidden = spec.hidden
    first, bias, last, offset = np.split(spec.numbers(), [-2 * hidden - 1, -hidden - 1, -1])
    return first.reshape(-1, hidden), bias, last, offset


def recognizability(inputs: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
    """Compute recognisability, 0..100: ``100 / (1 + exp(-z))`` of the network's output z.

    Parameters
    ----------
    inputs : ndarray, shape (N, D + 63), float32
        Unit vectors, concatenated with the `features` of the crops.
    weights : tuple of ndarray
        From `read_weights`.
    """
    first, bias, last, offset = weights
    z = np.maximum(inputs @ first + bias, 0) @ last + offset
    return np.asarray(50 + 50 * np.tanh(z / 2), np.float32)


def allowance(better: float | NDArray[np.floating], largest: float) -> NDArray[np.float64]:
    """Compute the amount to subtract from the similarity of two faces.

    Impostor pairs pass if both pictures are poor in the same way; one good picture is enough to
    tell strangers apart.  Faces just above the limit of the gate are still hard to read, so a pair
    of them needs a higher similarity.  The amount is `largest` up to a recognisability r of 50,
    falls linearly with ``ln(r / (100 - r))`` above 50, and is 0 from 95 on.

    Parameters
    ----------
    better : float or ndarray
        The higher recognisability of the two faces of each pair, 0..100.
    largest : float
        In units of cosine similarity.

    Returns
    -------
    ndarray of the same shape, float64
    """
    r = np.clip(better, 50.0, CLEAR)
    logit = np.log(r / (100 - r)) / math.log(CLEAR / (100 - CLEAR))
    return np.asarray(largest * (1 - logit), np.float64)


class Gate:
    """Refuses faces that the embedder cannot read.

    Parameters
    ----------
    spec : RecognizabilitySpec, optional
        The embedder's section of the manifest.  Without it, the gate scores the crop alone.
    limit : float, optional
        Lowest accepted recognisability, 0..100; by default the pack's, or 0.

    Attributes
    ----------
    limit : float
    allowance : float
        The `largest` of `allowance`; 0 if the limit is 0, which switches the gate off.
    """

    def __init__(self, spec: RecognizabilitySpec | None = None, limit: float | None = None) -> None:
        usual, largest = (0.0, 0.0) if spec is None else (spec.limit, spec.allowance)
        self.limit = usual if limit is None else limit
        self.allowance = largest if self.limit > 0 else 0.0
        self._weights = None if spec is None else read_weights(spec)

    def scores(
        self, vectors: NDArray[np.float32], crops: Sequence[NDArray[np.uint8]]
    ) -> list[float]:
        """Score the recognisability of faces, 0..100, from unit vectors (N, D) and aligned crops.

        The lowest of the crop's `limits` caps the network's output.
        """
        from facecore.face.measures import occlusion
        from facecore.face.measures.visibility import limits

        seen = [(crop, occlusion.features(crop)) for crop in crops]
        least = [min(limits(crop, small).values()) for crop, small in seen]
        if self._weights is None:
            return least
        inputs = np.hstack([vectors, np.stack([features(crop, small) for crop, small in seen])])
        scores: list[float] = np.minimum(recognizability(inputs, self._weights), least).tolist()
        return scores

    def check(self, score: float, crop: NDArray[np.uint8], face: Face) -> None:
        """Raise `UnrecognizableFace`, with the likely reason, if `score` is below the limit.

        Parameters
        ----------
        score : float
            From `scores`.
        crop : ndarray, shape (112, 112, 3), uint8, BGR
            Aligned.
        face : Face
        """
        if score < self.limit:
            reason, hint = likely_reason(crop, face)
            raise UnrecognizableFace(
                f"the face cannot be recognised (recognisability {score:.3g}, limit "
                f"{self.limit:.3g}): {reason}",
                hint,
            )


def likely_reason(crop: NDArray[np.uint8], face: Face) -> tuple[str, str]:
    """Describe what most likely makes a face unreadable, and what to do about it.

    Parameters
    ----------
    crop : ndarray, shape (112, 112, 3), uint8, BGR
        Aligned.
    face : Face

    Returns
    -------
    reason, hint : str
    """
    from facecore.face.measures import MEASURES
    from facecore.face.measures.occlusion import occlusion
    from facecore.face.measures.pixels import photometry
    from facecore.face.measures.visibility import limits

    light = photometry(crop)
    mean = light["luminance_mean"]
    found = {
        "dark": 1000 * mean,
        "bright": MEASURES["over_exposure"](light["over_exposure"]),
        "flat": MEASURES["luminance_variance"](light["luminance_variance"]) if mean > 0.1 else 100,
    }
    if min(found.values()) > 50:  # in bad light, the other measures tell little
        found |= {
            "covered": MEASURES["key_occlusion"](occlusion(crop)["key_occlusion"]),
            "small": 0.0 if face.size < CROP_SIZE / 4 else 100.0,
            "turned": 100 - abs(face.roll) if abs(face.roll) > 45 else 100.0,
            **limits(crop),
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
    "detail": ("it is probably blurred", "use a sharp picture of a still face"),
    "eyes_visible": ("its eyes are probably covered", "use a picture without sunglasses"),
    "mouth_visible": ("its mouth is probably covered", "use a picture without a mask or a hand"),
    "tone": ("it is probably a negative", "use a positive of the picture"),
    "turned": ("it is probably turned", "use a picture of an upright face"),
}
