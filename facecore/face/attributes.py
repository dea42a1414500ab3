"""Apparent age and gender of an aligned face: reference values, computed only on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError
from facecore.models.inference import run, to_tensor

if TYPE_CHECKING:
    from facecore.models.inference import Session
    from facecore.models.manifest import AttributesSpec

__all__ = ["AttributeEstimator", "Attributes"]


@dataclass(frozen=True, slots=True)
class Attributes:
    """Apparent age and gender, estimated by a network trained on labelled faces.

    These are reference values, not proof of an age and not a statement about anyone's identity.
    Errors differ between groups; see the table in the pack's model card.

    Attributes
    ----------
    age : float
        Mean of the network's age distribution, 0..100 years.
    age_spread : float
        Standard deviation of that distribution, in years.
    gender : {"M", "F"}
    gender_confidence : float
        The network's probability of `gender`, 0.5..1.
    """

    age: float
    age_spread: float
    gender: Literal["M", "F"]
    gender_confidence: float


class AttributeEstimator:
    """Maps aligned faces to ages and genders.

    Parameters
    ----------
    session : Session
    spec : AttributesSpec
        The attributes section of the manifest.
    """

    def __init__(self, session: Session, spec: AttributesSpec) -> None:
        self._session = session
        self._spec = spec

    def estimate(self, crops: NDArray[np.uint8]) -> list[Attributes]:
        """Estimate the attributes of aligned crops.

        Parameters
        ----------
        crops : ndarray, shape (N, 112, 112, 3), uint8
            BGR, from `facecore.face.alignment.align`.

        Raises
        ------
        FacecoreError
            The network failed, or its output is not a probability.
        """
        if not len(crops):
            return []
        spec = self._spec
        feed = {spec.input.name: to_tensor(crops, spec.input)}
        names = [spec.output.age, spec.output.gender]
        shares, female = run(self._session, names, feed, spec.file)
        if not (np.isfinite(shares).all() and ((female >= 0) & (female <= 1)).all()):
            raise FacecoreError(
                "the output of the network for age and gender is not a probability",
                "check the pack: facecore weights verify",
            )
        years = np.arange(spec.output.ages)
        ages = shares @ years
        spreads = np.sqrt(np.maximum(shares @ years**2 - ages**2, 0))
        return [
            Attributes(float(age), float(spread), "F" if p >= 0.5 else "M", float(max(p, 1 - p)))
            for age, spread, p in zip(ages, spreads, female.reshape(-1), strict=True)
        ]
