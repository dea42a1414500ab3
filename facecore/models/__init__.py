"""Model packs: what they state, where they are, and the ONNX Runtime sessions they run in.

Nothing here loads ONNX Runtime or touches the network before it is asked to.
"""

from facecore.models.calibrations import (
    CalibrationFile,
    calibration_lines,
    read_calibration,
    write_calibration,
)
from facecore.models.install import PullResult, pull
from facecore.models.interchange import InterchangeSpec, MixedRate
from facecore.models.manifest import (
    AttributesSpec,
    DetectorSpec,
    EmbedderSpec,
    LivenessSpec,
    Manifest,
    contract_id,
    read_manifest,
)
from facecore.models.packs import LoadedPack, Pack, find_pack, load_pack
from facecore.models.registry import FileCheck, PackInfo, known_packs, verify
from facecore.models.specs import (
    AttributesOutput,
    CalibrationSpec,
    CueModel,
    DetectorOutput,
    EmbedderOutput,
    InputSpec,
    Knot,
    LivenessOutput,
    MeasuredRate,
)

__all__ = [
    "AttributesOutput",
    "AttributesSpec",
    "CalibrationFile",
    "CalibrationSpec",
    "CueModel",
    "DetectorOutput",
    "DetectorSpec",
    "EmbedderOutput",
    "EmbedderSpec",
    "FileCheck",
    "InputSpec",
    "InterchangeSpec",
    "Knot",
    "LivenessOutput",
    "LivenessSpec",
    "LoadedPack",
    "Manifest",
    "MeasuredRate",
    "MixedRate",
    "Pack",
    "PackInfo",
    "PullResult",
    "calibration_lines",
    "contract_id",
    "find_pack",
    "known_packs",
    "load_pack",
    "pull",
    "read_calibration",
    "read_manifest",
    "verify",
    "write_calibration",
]
