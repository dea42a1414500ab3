"""Passive liveness: detect faces photographed from a print or a display, in one picture.

A network scores the face and its surroundings.  Named cues of colour and tone add to its output.
A good mask, or a picture injected behind the camera, passes.  See docs/liveness.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facecore.errors import (
    FacecoreError,
    FaceTooSmall,
    FaceTurned,
    InvalidParameter,
    PackCorrupt,
)
from facecore.face.measures.geometry import head_pose
from facecore.face.pad_features import CUES, measure, region, views
from facecore.models.inference import run, to_tensor

if TYPE_CHECKING:
    from facecore.face.detection import Face
    from facecore.models.inference import Session
    from facecore.models.manifest import LivenessSpec
    from facecore.models.specs import CueModel

__all__ = [
    "LARGEST_ROLL",
    "LARGEST_YAW",
    "SMALLEST_FACE",
    "AttackClassifier",
    "Liveness",
    "contributions",
]

SMALLEST_FACE = 48.0
"""Size in pixels of the smallest face box that is judged."""

LARGEST_YAW = 60.0
"""Largest yaw in degrees, either way, that is judged."""

LARGEST_ROLL = 45.0
"""Largest `Face.roll` in degrees, either way, that is judged."""

_LIMIT = 4.0  # scaled cues are clipped to this
_SPOKEN = 0.5  # log odds from which a contribution is a reason
_NETWORK = "network"


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
    reasons : tuple of str
        The cues that indicate an attack, in words, the strongest first.  A bona fide picture
        can have some too, because the score weighs all of them.
    """

    attack_score: float
    threshold: float
    cues: dict[str, float]
    reasons: tuple[str, ...] = ()

    @property
    def is_attack(self) -> bool:
        """Whether the attack score reaches the threshold."""
        return self.attack_score >= self.threshold


def contributions(
    cues: dict[str, float], model: CueModel, given: NDArray[np.floating]
) -> dict[str, float]:
    """Compute the log odds that the network and each cue add to the score.

    Their sum with ``model.bias`` is z in `facecore.models.specs.CueModel`.

    Parameters
    ----------
    cues : dict of str to float
    model : CueModel
    given : ndarray, shape (len(model.names),)
        Amounts that the network adds to the cues' weights for this picture.
    """
    values = np.array([cues[name] for name in model.names])
    scaled = np.clip((values - np.array(model.mean)) / np.array(model.scale), -_LIMIT, _LIMIT)
    added = scaled * (np.array(model.weight) + given)
    return {_NETWORK: model.network * cues[_NETWORK]} | {
        name: float(part) for name, part in zip(model.names, added, strict=True)
    }


def _in_words(added: dict[str, float], cues: dict[str, float], model: CueModel) -> tuple[str, ...]:
    usual = dict(zip(model.names, model.mean, strict=True))
    spoken = sorted((name for name in added if added[name] >= _SPOKEN), key=lambda n: -added[n])
    return tuple(
        "the network detects a recapture"
        if name == _NETWORK
        else (CUES[name].high if cues[name] > usual[name] else CUES[name].low)
        for name in spoken
    )


class AttackClassifier:
    """Scores faces with a small network and named cues.

    Parameters
    ----------
    session : Session
        Network that maps the picture from `facecore.face.pad_features.views` to the log odds of
        an attack and the amount to add to the weight of each cue.
    spec : LivenessSpec
        The liveness section of the manifest.

    Raises
    ------
    InvalidParameter
        This version no longer runs the model's architecture.
    PackCorrupt
        The manifest names a cue that this version does not measure.
    """

    def __init__(self, session: Session, spec: LivenessSpec) -> None:
        if not spec.is_runnable:
            raise InvalidParameter(
                f"this version does not run liveness models of the kind {spec.architecture}",
                "use the pack that ships with this version",
            )
        if unknown := set(spec.cues.names) - set(CUES):
            raise PackCorrupt(
                f"the manifest's liveness section names unknown cues: {', '.join(sorted(unknown))}",
                f"known cues: {', '.join(CUES)}",
            )
        self._session = session
        self._spec = spec

    def assess(self, pixels: NDArray[np.uint8], face: Face) -> Liveness:
        """Assess one face of an upright (H, W, 3) uint8 BGR picture.

        Raises
        ------
        FaceTooSmall
            The box is smaller than `SMALLEST_FACE`.
        FaceTurned
            The head is turned sideways further than `LARGEST_YAW`, or tilted further than
            `LARGEST_ROLL`.
        FacecoreError
            The network failed, or its output is not finite.
        """
        if face.size < SMALLEST_FACE:
            raise FaceTooSmall(
                f"the face measures {face.size:.0f} pixels, "
                f"liveness needs at least {SMALLEST_FACE:.0f}"
            )
        yaw, _, _ = head_pose(face.landmarks)
        for how, angle, limit in (
            ("tilted", abs(face.roll), LARGEST_ROLL),
            ("turned", abs(yaw), LARGEST_YAW),
        ):
            if angle > limit:
                raise FaceTurned(
                    f"the head is {how} by {angle:.0f} degrees, liveness accepts up to {limit:.0f}"
                )
        (cues, added), model = self.evidence(pixels, face.box), self._spec.cues
        z = model.bias + math.fsum(added.values())
        score = 50.0 * (1.0 + math.tanh(z / 2))
        return Liveness(score, self._spec.threshold, cues, _in_words(added, cues, model))

    def evidence(
        self, pixels: NDArray[np.uint8], box: NDArray[np.floating]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Measure the cues of a face and ``network``, the network's log odds of an attack.

        Returns
        -------
        cues : dict of str to float
        added : dict of str to float
            Amount that each adds to the log odds, see `contributions`.
        """
        spec, found = self._spec, region(pixels, box)
        feed = {spec.input.name: to_tensor(views(pixels, box, found)[None], spec.input)}
        (answer,) = run(self._session, [spec.output.name], feed, spec.file)
        if not np.isfinite(answer).all():
            raise FacecoreError(
                "the output of the liveness network is not finite",
                "check the pack: facecore weights verify",
            )
        cues = {**measure(found), _NETWORK: float(answer[0, 0])}
        return cues, contributions(cues, spec.cues, answer[0, 1:])
