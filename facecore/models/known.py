"""``known.toml``: published models, identified by SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from facecore.models import registry
from facecore.models.manifest import DETECTOR_HEADS
from facecore.models.schema import parse, read_toml, require
from facecore.models.specs import CalibrationSpec

__all__ = ["KNOWN_NAME", "KnownModel", "licence_in_words", "read_known"]

KNOWN_NAME = "known.toml"
ROLES = ("detector", "embedder")

# SPDX name -> meaning for the user.
_WORDS = {
    "MIT": "free to use, change and sell; keep the copyright notice with every copy",
    "Apache-2.0": (
        "free to use, change and sell; keep the licence and notices with every copy, "
        "and say what you changed"
    ),
}


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published model file.

    Parameters
    ----------
    name, sha256 : str
    size : int, optional
        Bytes; None if unknown.
    role : {"detector", "embedder"}
    architecture : str
        For a detector, the head family.
    channels, mean, std
        As in the input section of a manifest.
    license, source, training_data, caveat : str
        As in a manifest.
    checked : bool
        Whether facecore's developers ran the model; otherwise the entry is as published.
    threshold : float, optional
        For a detector, the minimum confidence of a face.
    calibration : CalibrationSpec, optional
        For a measured embedder.
    """

    name: str
    sha256: str
    role: str
    architecture: str
    channels: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    license: str
    source: str
    training_data: str
    checked: bool
    caveat: str = ""
    size: int | None = None
    threshold: float | None = None
    calibration: CalibrationSpec | None = None

    def __post_init__(self) -> None:
        require(self.role in ROLES, "role", f"must be one of {', '.join(ROLES)}")
        if self.role == "detector":
            known = ", ".join(DETECTOR_HEADS)
            require(self.architecture in DETECTOR_HEADS, "architecture", f"must be one of {known}")
            require(self.calibration is None, "calibration", "is for embedders only")
        if self.calibration is not None:
            bound = self.calibration.embedder == self.sha256
            require(bound, "calibration.embedder", "must be the model's own SHA-256")


@dataclass(frozen=True, slots=True)
class _File:
    format: int
    models: tuple[KnownModel, ...]

    def __post_init__(self) -> None:
        require(self.format == 1, "format", "must be 1; a newer facecore may know this one")
        hashes = {model.sha256 for model in self.models}
        require(len(hashes) == len(self.models), "models", "hashes must differ from each other")


def read_known() -> Mapping[str, KnownModel]:
    """Read the known models: SHA-256 -> entry.

    Raises
    ------
    PackCorrupt
        ``known.toml`` is invalid; the message names the field.
    """
    path = registry.shipped_root() / KNOWN_NAME
    return MappingProxyType(
        {model.sha256: model for model in parse(_File, read_toml(path), path).models}
    )


def licence_in_words(license: str) -> str:
    """Describe a licence in one sentence; for an unknown one, advise asking the publisher."""
    if "non-commercial research" in license.lower():
        return "for non-commercial research only: ask the publisher before any other use"
    # Not a search for the names: "no use permitted" contains "mit".
    return _WORDS.get(license, "not known here: ask the publisher before you use it")
