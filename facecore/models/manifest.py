"""The manifest of a model pack, ``pack.toml``: its models, their inputs and outputs."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

from facecore.models.compatibility import InterchangeSpec
from facecore.models.schema import is_file_name, is_pack_name, parse, read_toml, require
from facecore.models.specs import (
    CROP_FEATURES,
    AttributesOutput,
    CalibrationSpec,
    CueModel,
    DetectorOutput,
    EmbedderOutput,
    InputSpec,
    LivenessOutput,
    RecognizabilitySpec,
)

MANIFEST_NAME = "pack.toml"

# Alignment name -> side of the square crop, in pixels.
ALIGNMENTS = {"arcface-5pt-112": 112}

# Detector architecture -> values per candidate face in each head.
# YuNet: class, objectness, box, five landmarks.  SCRFD: score, box, landmarks.
# RetinaFace: box, probabilities of background and face, landmarks.
DETECTOR_HEADS = {"yunet": (1, 1, 4, 10), "scrfd": (1, 4, 10), "retinaface": (4, 2, 10)}

# One output per head; other architectures have one per head and stride.
JOINED_STRIDES = frozenset({"retinaface"})

# Liveness architecture -> height and width of its input.
LIVENESS_INPUTS = {"native-patches-112": (112, 112), "patch-and-view": (112, 192)}

_SHA256 = re.compile(r"[0-9a-f]{64}")

# Protobuf limits a single-file ONNX model to 2 GiB. This also bounds reads into memory.
MAX_MODEL_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ModelFile:
    """File and origin of a model in a pack.

    Parameters
    ----------
    file : str
        Name of the ONNX file, without a folder.
    size : int
        Bytes.
    sha256 : str
        64 lower-case hexadecimal digits.
    architecture : str
        For a detector the head family, ``yunet``, ``scrfd`` or ``retinaface``; for a liveness
        model ``patch-and-view``; for other models a free description.
    license : str
        Terms of use: an SPDX identifier if one exists.
    source : str
        Where the file was published.
    training_data : str
        Data sets that the model was trained on.
    caveat : str
        Warning to the user.  The only text that may be empty.
    folder : str, optional
        Absolute path of the folder that holds the file; default: the pack's folder.
        ``facecore weights adopt`` sets it to avoid copying a user's file.
    """

    file: str
    size: int
    sha256: str
    architecture: str
    license: str
    source: str
    training_data: str
    caveat: str
    folder: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        require(is_file_name(self.file), "file", "must be a bare file name")
        require(self.file.lower() != MANIFEST_NAME, "file", "must not be the manifest's name")
        require(0 < self.size <= MAX_MODEL_BYTES, "size", f"must be within 1..{MAX_MODEL_BYTES}")
        require(bool(_SHA256.fullmatch(self.sha256)), "sha256", "must be 64 hexadecimal digits")
        for name in ("architecture", "license", "source", "training_data"):
            require(bool(getattr(self, name).strip()), name, "must not be empty")
        if self.folder is not None:
            require(Path(self.folder).is_absolute(), "folder", "must be an absolute path")


@dataclass(frozen=True, slots=True)
class DetectorSpec(ModelFile):
    """The face detector of a pack.

    Parameters
    ----------
    threshold : float
        Minimum confidence of a face, 0–1.
    input : InputSpec
        Subsection of the manifest.
    output : DetectorOutput
        Subsection of the manifest.
    """

    threshold: float
    input: InputSpec
    output: DetectorOutput

    def __post_init__(self) -> None:
        # Not super(): slots=True creates a new class, and a bare super() refers to the old one.
        ModelFile.__post_init__(self)
        known = ", ".join(DETECTOR_HEADS)
        require(self.architecture in DETECTOR_HEADS, "architecture", f"must be one of {known}")
        require(0 < self.threshold < 1, "threshold", "must lie between 0 and 1")
        wanted = len(numbers_per_output(self.architecture, len(self.output.strides)))
        found = len(self.output.names)
        require(found == wanted, "output.names", f"must name {wanted} outputs, names {found}")
        fixed = self.architecture not in JOINED_STRIDES or self.output.strides == (8, 16, 32)
        require(fixed, "output.strides", f"must be [8, 16, 32] for {self.architecture}")
        height, width, step = self.input.height, self.input.width, max(self.output.strides)
        require(bool(height) == bool(width), "input.height", "and width must both be 0, or neither")
        for name, side in (("height", height), ("width", width)):
            require(side % step == 0, f"input.{name}", f"must be a multiple of {step}")


def numbers_per_output(architecture: str, strides: int) -> tuple[int, ...]:
    """Return the values per candidate in each output of a detector with `strides` strides."""
    repeat = 1 if architecture in JOINED_STRIDES else strides
    return tuple(n for n in DETECTOR_HEADS[architecture] for _ in range(repeat))


@dataclass(frozen=True, slots=True)
class EmbedderSpec(ModelFile):
    """The face embedder of a pack.

    Parameters
    ----------
    alignment : str
        Alignment of the training crops: ``arcface-5pt-112``.
    max_batch : int
        Maximum faces per run; 0 means any.
    input : InputSpec
        Subsection of the manifest.
    output : EmbedderOutput
        Subsection of the manifest.
    calibration : CalibrationSpec, optional
        Photos against photos; without it the pack returns similarities but no scores.
    id_portrait_calibration : CalibrationSpec, optional
        Portraits from an identity card's chip against photos.
    recognizability : RecognizabilitySpec, optional
        Detects unreadable faces by vector and crop; without it the pack refuses none by default.
    interchange : InterchangeSpec, optional
        For a variant: the contract of the pack whose vectors it may replace, with the
        measurement.
    """

    alignment: str
    max_batch: int
    input: InputSpec
    output: EmbedderOutput
    calibration: CalibrationSpec | None = None
    id_portrait_calibration: CalibrationSpec | None = None
    recognizability: RecognizabilitySpec | None = None
    interchange: InterchangeSpec | None = None

    def __post_init__(self) -> None:
        ModelFile.__post_init__(self)
        _check_alignment(self.alignment, self.input)
        require(0 <= self.max_batch <= 4096, "max_batch", "must be within 0..4096")
        whole = self.calibration is not None or self.id_portrait_calibration is None
        require(whole, "calibration", "is required by id_portrait_calibration")
        for name in ("calibration", "id_portrait_calibration", "recognizability"):
            table: CalibrationSpec | RecognizabilitySpec | None = getattr(self, name)
            if table is None:
                continue
            another = "is the hash of another embedder: measure again"
            require(table.embedder in (None, self.sha256), f"{name}.embedder", another)
        if (part := self.recognizability) is not None:
            wanted = (self.output.dimension + CROP_FEATURES + 2) * part.hidden + 1
            held = len(part.numbers())
            fits = held == wanted
            require(fits, "recognizability.weights", f"must hold {wanted} numbers, holds {held}")


@dataclass(frozen=True, slots=True)
class LivenessSpec(ModelFile):
    """The presentation attack classifier of a pack.

    Parameters
    ----------
    threshold : float
        Attack scores at or above this value count as an attack, 0–100.
    bpcer : float
        Measured share of genuine presentations at or above the threshold, 0–1.
    bpcer_dataset : str
        Data set that `bpcer` was measured on.
    input : InputSpec
        Subsection of the manifest.
    output : LivenessOutput
        Subsection of the manifest.
    cues : CueModel
        Combines the network's output with the cues; subsection of the manifest.
    """

    threshold: float
    bpcer: float
    bpcer_dataset: str
    input: InputSpec
    output: LivenessOutput
    cues: CueModel

    def __post_init__(self) -> None:
        ModelFile.__post_init__(self)
        known = ", ".join(LIVENESS_INPUTS)
        require(self.architecture in LIVENESS_INPUTS, "architecture", f"must be one of {known}")
        _check_size(self.input, LIVENESS_INPUTS[self.architecture], self.architecture)
        require(0 < self.threshold < 100, "threshold", "must lie between 0 and 100")
        require(0 <= self.bpcer <= 1, "bpcer", "must be within 0..1")
        require(bool(self.bpcer_dataset.strip()), "bpcer_dataset", "must not be empty")

    @property
    def is_runnable(self) -> bool:
        """Whether this version runs the architecture; it only reads the older one."""
        return self.architecture == "patch-and-view"

    @property
    def max_batch(self) -> int:
        """0: a run takes any number of faces."""
        return 0


@dataclass(frozen=True, slots=True)
class AttributesSpec(ModelFile):
    """The age and gender network of a pack.

    Parameters
    ----------
    alignment : str
        Alignment of the training crops: ``arcface-5pt-112``.
    input : InputSpec
        Subsection of the manifest.
    output : AttributesOutput
        Subsection of the manifest.
    """

    alignment: str
    input: InputSpec
    output: AttributesOutput

    def __post_init__(self) -> None:
        ModelFile.__post_init__(self)
        _check_alignment(self.alignment, self.input)

    @property
    def max_batch(self) -> int:
        """0: a run takes any number of faces."""
        return 0


def _check_alignment(alignment: str, tensor: InputSpec) -> None:
    require(alignment in ALIGNMENTS, "alignment", f"must be one of {', '.join(ALIGNMENTS)}")
    _check_size(tensor, (ALIGNMENTS[alignment],) * 2, alignment)


def _check_size(tensor: InputSpec, size: tuple[int, int], wanted_by: str) -> None:
    for name, value, wanted in zip(
        ("height", "width"), (tensor.height, tensor.width), size, strict=True
    ):
        require(value == wanted, f"input.{name}", f"must be {wanted} for {wanted_by}")


ModelSpec: TypeAlias = DetectorSpec | EmbedderSpec | LivenessSpec | AttributesSpec


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content of a ``pack.toml``; models that default to None are optional.

    Parameters
    ----------
    format : int
        1.
    name : str
        Lower-case letters, digits, ``_`` and ``-``; the name of the pack's folder.
    version, summary : str
        Text for the user.
    detector, embedder, liveness, attributes
        The models, one section each.
    shares : str, optional
        Name of the pack, in a sibling folder, that holds the model files missing from this
        folder.  Avoids shipping the same file twice.
    """

    format: int
    name: str
    version: str
    summary: str
    detector: DetectorSpec
    embedder: EmbedderSpec
    liveness: LivenessSpec | None = None
    attributes: AttributesSpec | None = None
    shares: str | None = None

    def __post_init__(self) -> None:
        require(self.format == 1, "format", "must be 1; a newer facecore may know this one")
        require(is_pack_name(self.name), "name", "must be lower-case letters, digits, _ and -")
        if self.shares is not None:
            another = is_pack_name(self.shares) and self.shares != self.name
            require(another, "shares", "must name another pack")
        require(bool(self.version.strip()), "version", "must not be empty")
        require(bool(self.summary.strip()), "summary", "must not be empty")
        owners: dict[str, str] = {}
        for role, model in self.models.items():
            owner = owners.setdefault(model.file.lower(), role)
            require(owner == role, f"{role}.file", f"is the {owner}'s file too")

    @property
    def models(self) -> dict[str, ModelSpec]:
        """The models in the pack, by role."""
        found: dict[str, ModelSpec | None] = {
            "detector": self.detector,
            "embedder": self.embedder,
            "liveness": self.liveness,
            "attributes": self.attributes,
        }
        return {role: model for role, model in found.items() if model is not None}


def read_manifest(path: Path) -> Manifest:
    """Read and check a ``pack.toml``.

    Raises
    ------
    PackCorrupt
        The manifest is invalid; the message names the file and the field.
    """
    return parse(Manifest, read_toml(path), path)


def contract_id(embedder: EmbedderSpec) -> str:
    """Return the identifier of an embedder's vector space.

    Two templates are comparable only if their contracts are equal. The contract depends on the
    embedder's file, input section, alignment and dimension only: a pack's name, detector and
    calibration may change without re-enrolment. A variant with an `InterchangeSpec` has the
    contract of the other pack.

    Returns
    -------
    str
        ``"c1-"`` and 16 hexadecimal digits (of a SHA-256 over canonical JSON).
    """
    if embedder.interchange is not None:
        return embedder.interchange.contract
    identity = {
        "sha256": embedder.sha256,
        "input": asdict(embedder.input),
        "alignment": embedder.alignment,
        "dimension": embedder.output.dimension,
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return "c1-" + hashlib.sha256(canonical.encode()).hexdigest()[:16]
