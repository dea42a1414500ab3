"""On-device face comparison: detection, alignment, embedding and calibrated scores."""

from facecore.engine import FaceEngine
from facecore.errors import (
    AddressRefused,
    ArchiveCorrupt,
    ContractMismatch,
    DownloadFailed,
    FacecoreError,
    FaceTooSmall,
    GalleryCorrupt,
    GalleryLocked,
    GalleryNotWritable,
    GalleryUnavailable,
    GroupExists,
    GroupNotFound,
    ImageTooLarge,
    InvalidParameter,
    MissingExtra,
    NoFaceDetected,
    PackCorrupt,
    PackNotFound,
    ProviderUnavailable,
    RecordNotFound,
    UnreadableImage,
    UserExists,
)
from facecore.face.attributes import Attributes
from facecore.face.detection import Face
from facecore.face.liveness import Liveness
from facecore.face.quality import Quality
from facecore.face.sample import FaceSample
from facecore.gallery.gallery import Gallery
from facecore.gallery.records import FaceRecord, GalleryStats, Group, Match
from facecore.matching.comparison import Comparison, CrossComparison
from facecore.matching.scanning import warmup

__version__ = "0.1.0"

__all__ = [
    "AddressRefused",
    "ArchiveCorrupt",
    "Attributes",
    "Comparison",
    "ContractMismatch",
    "CrossComparison",
    "DownloadFailed",
    "Face",
    "FaceEngine",
    "FaceRecord",
    "FaceSample",
    "FaceTooSmall",
    "FacecoreError",
    "Gallery",
    "GalleryCorrupt",
    "GalleryLocked",
    "GalleryNotWritable",
    "GalleryStats",
    "GalleryUnavailable",
    "Group",
    "GroupExists",
    "GroupNotFound",
    "ImageTooLarge",
    "InvalidParameter",
    "Liveness",
    "Match",
    "MissingExtra",
    "NoFaceDetected",
    "PackCorrupt",
    "PackNotFound",
    "ProviderUnavailable",
    "Quality",
    "RecordNotFound",
    "UnreadableImage",
    "UserExists",
    "warmup",
]
