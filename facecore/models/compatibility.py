"""Evidence that an embedder's vectors are interchangeable with those of another pack."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from facecore.models.schema import is_pack_name, require

__all__ = ["CONTRACT", "InterchangeSpec", "MixedRate"]

CONTRACT = re.compile(r"c1-[0-9a-f]{16}")

# Limits for a variant.  At these cosines, most similarities change by less than 0.01, a fifth
# of the step from FAR 1 % to 0.1 %.
LEAST_MEAN_COSINE = 0.99
LEAST_LOW_COSINE = 0.97
MOST_FMR_RATIO = 1.25
MOST_FNMR_RISE = 0.02


@dataclass(frozen=True, slots=True)
class MixedRate:
    """Error rates at one similarity: a score threshold of the pack that owns the contract.

    Parameters
    ----------
    similarity : float
        Cosine, -1–1.
    fmr, fnmr : float
        Error rates with the owner's vectors in gallery and probes, 0–1.
    mixed_fmr, mixed_fnmr : float
        Error rates of this embedder's probes against the owner's vectors in the gallery, 0–1.
    """

    similarity: float
    fmr: float
    mixed_fmr: float
    fnmr: float
    mixed_fnmr: float

    def __post_init__(self) -> None:
        require(-1 < self.similarity < 1, "similarity", "must lie between -1 and 1")
        for field in ("fmr", "mixed_fmr", "fnmr", "mixed_fnmr"):
            require(0 <= getattr(self, field) <= 1, field, "must be within 0..1")
        allowed = f"must be at most {MOST_FMR_RATIO} times fmr"
        require(self.mixed_fmr <= MOST_FMR_RATIO * self.fmr, "mixed_fmr", allowed)
        allowed = f"must exceed fnmr by at most {MOST_FNMR_RISE}"
        require(self.mixed_fnmr <= self.fnmr + MOST_FNMR_RISE, "mixed_fnmr", allowed)


@dataclass(frozen=True, slots=True)
class InterchangeSpec:
    """Contract of another pack, with evidence that this embedder's vectors are compatible.

    Both packs processed every picture from detection on.  Evidence below the limits is a
    manifest error: such an embedder needs a separate contract.

    Parameters
    ----------
    pack, contract : str
        Name and contract of the pack that owns the contract.
    dataset : str
        Name of the data set.
    pictures, identities, genuine, impostor : int
        Number of pictures, people, and ordered comparisons between vectors of the two packs.
    cosine_mean, cosine_low : float
        Cosine between a picture's two vectors: mean and first percentile.
    rates : tuple of MixedRate
        Sorted by similarity.
    """

    pack: str
    contract: str
    dataset: str
    pictures: int
    identities: int
    genuine: int
    impostor: int
    cosine_mean: float
    cosine_low: float
    rates: tuple[MixedRate, ...]

    def __post_init__(self) -> None:
        require(is_pack_name(self.pack), "pack", "must be lower-case letters, digits, _ and -")
        is_contract = CONTRACT.fullmatch(self.contract) is not None
        require(is_contract, "contract", "must be c1- and 16 hexadecimal digits")
        require(bool(self.dataset.strip()), "dataset", "must not be empty")
        for field in ("pictures", "identities", "genuine", "impostor"):
            require(getattr(self, field) > 0, field, "must be above zero")
        for field, least in (("cosine_mean", LEAST_MEAN_COSINE), ("cosine_low", LEAST_LOW_COSINE)):
            require(least <= getattr(self, field) <= 1, field, f"must be within {least}..1")
        require(bool(self.rates), "rates", "must not be empty")
        similarities = [rate.similarity for rate in self.rates]
        rising = all(a < b for a, b in itertools.pairwise(similarities))
        require(rising, "rates", "similarity must rise")
