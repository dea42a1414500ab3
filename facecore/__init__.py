"""On-device face comparison: detection, alignment, embedding and calibrated scores.

Names are loaded on first use, so `import facecore` takes almost no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from facecore._version import __version__ as __version__

if TYPE_CHECKING:
    from facecore.engine import FaceEngine
    from facecore.errors import (
        AddressRefused,
        ArchiveCorrupt,
        ContractMismatch,
        DownloadFailed,
        FacecoreError,
        FaceTooSmall,
        FaceTurned,
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
        NotCalibrated,
        PackCorrupt,
        PackNotFound,
        ProviderUnavailable,
        RecordNotFound,
        SeveralFacesDetected,
        UnreadableImage,
        UnrecognizableFace,
        UserExists,
        WrongKey,
    )
    from facecore.face.attributes import Attributes
    from facecore.face.detection import Face
    from facecore.face.liveness import Liveness
    from facecore.face.quality import Quality
    from facecore.face.sample import FaceSample
    from facecore.gallery.gallery import Gallery
    from facecore.gallery.records import (
        FaceRecord,
        GalleryStats,
        Group,
        Identification,
        Match,
        Verification,
    )
    from facecore.matching.comparison import Comparison, CrossComparison
    from facecore.matching.scanning import warmup
    from facecore.models.listing import PackInfo, list_packs

# Module -> its public names; the imports above repeat them for type checkers.
_NAMES = {
    "facecore.engine": ("FaceEngine",),
    "facecore.errors": (
        "AddressRefused",
        "ArchiveCorrupt",
        "ContractMismatch",
        "DownloadFailed",
        "FaceTooSmall",
        "FaceTurned",
        "FacecoreError",
        "GalleryCorrupt",
        "GalleryLocked",
        "GalleryNotWritable",
        "GalleryUnavailable",
        "GroupExists",
        "GroupNotFound",
        "ImageTooLarge",
        "InvalidParameter",
        "MissingExtra",
        "NoFaceDetected",
        "NotCalibrated",
        "PackCorrupt",
        "PackNotFound",
        "ProviderUnavailable",
        "RecordNotFound",
        "SeveralFacesDetected",
        "UnreadableImage",
        "UnrecognizableFace",
        "UserExists",
        "WrongKey",
    ),
    "facecore.face.attributes": ("Attributes",),
    "facecore.face.detection": ("Face",),
    "facecore.face.liveness": ("Liveness",),
    "facecore.face.quality": ("Quality",),
    "facecore.face.sample": ("FaceSample",),
    "facecore.gallery.gallery": ("Gallery",),
    "facecore.gallery.records": (
        "FaceRecord",
        "GalleryStats",
        "Group",
        "Identification",
        "Match",
        "Verification",
    ),
    "facecore.matching.comparison": (
        "Comparison",
        "CrossComparison",
    ),
    "facecore.matching.scanning": ("warmup",),
    "facecore.models.listing": (
        "PackInfo",
        "list_packs",
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
_SUBMODULES = (
    "collections", "drawing", "engine", "errors", "evaluation", "face", "gallery", "images",
    "matching", "models",
)  # fmt: skip

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
    "FaceTurned",
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
    "Identification",
    "ImageTooLarge",
    "InvalidParameter",
    "Liveness",
    "Match",
    "MissingExtra",
    "NoFaceDetected",
    "NotCalibrated",
    "PackCorrupt",
    "PackInfo",
    "PackNotFound",
    "ProviderUnavailable",
    "Quality",
    "RecordNotFound",
    "SeveralFacesDetected",
    "UnreadableImage",
    "UnrecognizableFace",
    "UserExists",
    "Verification",
    "WrongKey",
    "list_packs",
    "warmup",
]


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
