"""Passive liveness: detect faces photographed from a print or a screen.

A single RGB picture carries limited evidence.  The classifier finds the traces of paper and
displays.  It does not stop a good mask, a picture injected behind the camera, or a display
whose structure the picture does not resolve.  See docs/liveness.md.
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
"""Size in pixels of the smallest face box that shows the traces of a recapture."""

# Patch centres as fractions of the face box: left brow and eye, right cheek and mouth corner.
# If one patch covers the face, its centre is used instead.
_PLACES = ((0.35, 0.35), (0.65, 0.7))
_LIMIT = 4.0  # scaled cues are clipped to this


@dataclass(frozen=True, slots=True)
class Liveness:
    """Presentation attack score of a face, with its cues.

    Attributes
    ----------
    attack_score : float
        0..100; higher is more likely a recapture.
    threshold : float
        Attack score at and above which the face counts as an attack.
    cues : dict of str to float
        Measured cues, each in its unit (see `facecore.face.pad_features`), and
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
    """Crop squares of the face at native sampling: two if its box is at least 1.5 `side`, else one.

    Resizing a large face to one square would remove the moiré that the network detects.

    Returns
    -------
    ndarray, shape (N, side, side, 3), uint8
    """
    x1, y1, x2, y2 = clipped(pixels, box)
    places = _PLACES if min(x2 - x1, y2 - y1) >= 1.5 * side else ((0.5, 0.5),)
    centres = [(x1 + u * (x2 - x1), y1 + v * (y2 - y1)) for u, v in places]
    return np.stack([cut(pixels, centre, side) for centre in centres])


def fuse_scores(cues: dict[str, float], logit: float, model: CueModel) -> float:
    """Compute the attack score, 0..100; see `facecore.models.specs.CueModel` for the formula."""
    values = np.array([cues[name] for name in model.names])
    scaled = np.clip((values - np.array(model.mean)) / np.array(model.scale), -_LIMIT, _LIMIT)
    z = model.bias + model.network * logit + float(scaled @ np.array(model.weight))
    return 50.0 * (1.0 + math.tanh(z / 2))


class AttackClassifier:
    """Scores faces by recapture cues and a small network.

    Parameters
    ----------
    session : Session
        Network that maps patches at native sampling to the log odds of an attack.
    spec : LivenessSpec
        The liveness section of the manifest.
    """

    def __init__(self, session: Session, spec: LivenessSpec) -> None:
        self._session = session
        self._spec = spec

    def assess(self, pixels: NDArray[np.uint8], face: Face) -> Liveness:
        """Assess one face of an upright (H, W, 3) uint8 BGR picture.

        Raises
        ------
        FaceTooSmall
            The box is smaller than `SMALLEST_FACE`.
        FacecoreError
            The network failed, or its output is not finite.
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
        """Measure the cues of a face, and the network's mean log odds of an attack over patches."""
        spec = self._spec
        parts = patches(pixels, box, spec.input.height)
        feed = {spec.input.name: to_tensor(parts, spec.input)}
        (answers,) = run(self._session, [spec.output.name], feed, spec.file)
        logit = float(answers.mean())
        if not math.isfinite(logit):
            raise FacecoreError(
                "the output of the liveness network is not finite",
                "check the pack: facecore weights verify",
            )
        return measure(pixels, box), logit
