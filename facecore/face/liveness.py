"""Passive liveness: whether a face was photographed from a print or a screen.

One RGB picture shows only so much.  This finds the traces that paper and displays leave; it
does not stop a good mask, a picture that is fed in behind the camera, or a display whose
structure the picture does not resolve.  See docs/liveness.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError, FaceTooSmall
from facecore.face.pad_features import clipped, cut, measure
from facecore.models.inference import run, to_tensor

if TYPE_CHECKING:
    from facecore.face.detection import Face
    from facecore.models.inference import Session
    from facecore.models.manifest import LivenessSpec
    from facecore.models.specs import CueModel

__all__ = ["SMALLEST_FACE", "AttackClassifier", "Liveness", "fuse_scores", "patches"]

SMALLEST_FACE = 48.0
"""Pixels; the size of the smallest box in which the traces of a recapture can be told."""

# In shares of the face box: the brow and the eye on the left, the cheek and the mouth's corner
# on the right; where one patch covers the face, its middle.
_PLACES = ((0.35, 0.35), (0.65, 0.7))
_LIMIT = 4.0  # no cue is believed beyond this many scales


@dataclass(frozen=True, slots=True)
class Liveness:
    """Whether a face is a presentation attack, and why.

    Attributes
    ----------
    attack_score : float
        0..100; higher is more likely a recapture.
    threshold : float
        Attack score from which the face is taken for an attack.
    cues : dict of str to float
        What was measured, each in its own unit (see `facecore.face.pad_features`), and
        ``network``, the network's log odds of an attack.
    """

    attack_score: float
    threshold: float
    cues: dict[str, float]

    @property
    def is_attack(self) -> bool:
        """Whether the attack score reaches the threshold."""
        return self.attack_score >= self.threshold


def patches(pixels: NDArray[np.uint8], box: NDArray[np.floating], side: int) -> NDArray[np.uint8]:
    """Squares of the face at native sampling: one, or two of a face that is larger by half.

    Resizing a large face to one square would remove the moiré that the network looks for.

    Returns
    -------
    ndarray, shape (N, side, side, 3), uint8
    """
    x1, y1, x2, y2 = clipped(pixels, box)
    places = _PLACES if min(x2 - x1, y2 - y1) >= 1.5 * side else ((0.5, 0.5),)
    centres = [(x1 + u * (x2 - x1), y1 + v * (y2 - y1)) for u, v in places]
    return np.stack([cut(pixels, centre, side) for centre in centres])


def fuse_scores(cues: dict[str, float], logit: float, model: CueModel) -> float:
    """Attack score, 0..100; the formula is `facecore.models.specs.CueModel`'s."""
    values = np.array([cues[name] for name in model.names])
    scaled = np.clip((values - np.array(model.mean)) / np.array(model.scale), -_LIMIT, _LIMIT)
    z = model.bias + model.network * logit + float(scaled @ np.array(model.weight))
    return 50.0 * (1.0 + math.tanh(z / 2))


class AttackClassifier:
    """Scores faces by the cues of a recapture and a small network.

    Parameters
    ----------
    session : Session
        A network that answers native patches with the log odds of an attack.
    spec : LivenessSpec
        The manifest's part on it.
    """

    def __init__(self, session: Session, spec: LivenessSpec) -> None:
        self._session = session
        self._spec = spec

    def assess(self, pixels: NDArray[np.uint8], face: Face) -> Liveness:
        """Judge one face of an upright (H, W, 3) uint8 BGR picture.

        Raises
        ------
        FaceTooSmall
            The box is smaller than `SMALLEST_FACE`.
        FacecoreError
            The network failed, or its answer is not finite.
        """
        if face.size < SMALLEST_FACE:
            raise FaceTooSmall(
                f"the face is {face.size:.0f} pixels large, "
                f"liveness needs at least {SMALLEST_FACE:.0f}"
            )
        cues, logit = self.evidence(pixels, face.box)
        score = fuse_scores(cues, logit, self._spec.cues)
        return Liveness(score, self._spec.threshold, {**cues, "network": logit})

    def evidence(
        self, pixels: NDArray[np.uint8], box: NDArray[np.floating]
    ) -> tuple[dict[str, float], float]:
        """The cues of a face, and the network's log odds of an attack: the patches' mean."""
        spec = self._spec
        parts = patches(pixels, box, spec.input.height)
        feed = {spec.input.name: to_tensor(parts, spec.input)}
        (answers,) = run(self._session, [spec.output.name], feed, spec.file)
        logit = float(answers.mean())
        if not math.isfinite(logit):
            raise FacecoreError(
                "the liveness network answered with a number that is not finite",
                "check the pack: facecore weights verify",
            )
        return measure(pixels, box), logit
