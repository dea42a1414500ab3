"""On-device face comparison: detection, alignment, embedding and calibrated scores."""

from facecore.engine import FaceEngine
from facecore.errors import (
    FacecoreError,
    ImageTooLarge,
    InvalidParameter,
    MissingExtra,
    NoFaceDetected,
    PackCorrupt,
    PackNotFound,
    ProviderUnavailable,
    UnreadableImage,
)
from facecore.face.attributes import Attributes
from facecore.face.detection import Face
from facecore.face.quality import Quality
from facecore.face.sample import FaceSample
from facecore.matching.comparison import Comparison, CrossComparison

__version__ = "0.1.0"

__all__ = [
    "Attributes",
    "Comparison",
    "CrossComparison",
    "Face",
    "FaceEngine",
    "FaceSample",
    "FacecoreError",
    "ImageTooLarge",
    "InvalidParameter",
    "MissingExtra",
    "NoFaceDetected",
    "PackCorrupt",
    "PackNotFound",
    "ProviderUnavailable",
    "Quality",
    "UnreadableImage",
]
