"""Typed errors, each with a stable code and a hint."""

from __future__ import annotations

__all__ = [
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
    "IndexCorrupt",
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
]


class FacecoreError(Exception):
    """Base class of all errors that facecore raises.

    Parameters
    ----------
    message : str
        One line: the problem, with the limit and the value found.
    hint : str, optional
        One line: how the caller can fix it.

    Attributes
    ----------
    code : str
        The class name; stable across releases.
    message, hint : str
    """

    hint_default = ""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint or self.hint_default
        super().__init__(message, self.hint)

    @property
    def code(self) -> str:
        """Stable error code for programs: the class name."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UnreadableImage(FacecoreError):
    """The input cannot be decoded as a complete image."""

    hint_default = "give a complete JPEG, PNG, WebP, BMP, TIFF or JPEG 2000 file"


class ImageTooLarge(FacecoreError):
    """The input exceeds the limit on bytes, pixels or memory."""

    hint_default = "resize the image, or raise the limit with facecore.images.Limits"


class AddressRefused(FacecoreError):
    """The address of a picture is not http or https, or this host must not fetch it."""

    hint_default = "give a public http:// or https:// address without credentials"


class DownloadFailed(FacecoreError):
    """The download of a picture failed, was incomplete, or timed out."""

    hint_default = "check the address, or send the picture itself"


class NoFaceDetected(FacecoreError):
    """No face was found, or its landmarks do not allow an alignment."""

    hint_default = "use a picture that shows the whole face, at least 20 pixels wide"


class UnrecognizableFace(FacecoreError):
    """The embedder cannot read the face, so a comparison would mean nothing."""

    hint_default = "use a sharp picture of an upright, uncovered face"


class SeveralFacesDetected(FacecoreError):
    """The picture shows more than one face, and if_many="refuse" was given."""

    hint_default = "use a picture of one person, or cut the face out"


class FaceTooSmall(FacecoreError):
    """The face has too few pixels for the requested analysis."""

    hint_default = "use a picture in which the face is larger"


class FaceTurned(FacecoreError):
    """The head is turned too far for the requested analysis."""

    hint_default = "use a picture in which the person faces the camera"


class InvalidParameter(FacecoreError, ValueError):
    """An argument has an invalid type, shape or value."""


class GalleryUnusable(InvalidParameter):
    """The gallery is closed, or was opened by another process.  Not public."""

    code = "InvalidParameter"  # stable: these states were told by it before they had a class


class MissingExtra(FacecoreError, ImportError):
    """An optional dependency is not installed."""


class NotCalibrated(FacecoreError):
    """The pack has no table from similarities to scores; similarities are still available."""

    hint_default = "measure a table on pictures of people: facecore calibrate DIR"


class PackNotFound(FacecoreError):
    """The model pack is not installed on this machine."""


class PackCorrupt(FacecoreError):
    """A file or the manifest of a model pack differs from the published one, or is invalid."""


class ProviderUnavailable(FacecoreError):
    """A requested ONNX Runtime execution provider is not available."""

    hint_default = "leave providers=None for the CPU"


class ArchiveCorrupt(FacecoreError):
    """The file is damaged, truncated, or not an export of groups."""

    hint_default = "export the groups again: facecore group export"


class ContractMismatch(FacecoreError):
    """The templates belong to different contracts (vector spaces) and cannot be compared."""

    hint_default = "use the pack that the gallery was made with, or enrol the pictures again"


class GalleryCorrupt(FacecoreError):
    """The database of a gallery is damaged."""

    hint_default = "restore the folder from a backup"


class GalleryLocked(FacecoreError):
    """The gallery cannot be changed: another process writes to it, or it is read-only."""

    hint_default = "one process writes at a time; others open the gallery with read_only=True"


class GalleryNotWritable(FacecoreError):
    """The disk is full or failing, or the folder cannot be written; nothing was changed."""

    hint_default = "free some space, and check the permissions of the folder"


class GalleryUnavailable(FacecoreError):
    """The Milvus server of a gallery cannot be reached, or a request to it failed."""

    hint_default = "check the address and the server; milvus.io/docs lists its error codes"


class GroupExists(FacecoreError):
    """A group of this name already exists."""


class GroupNotFound(FacecoreError):
    """The gallery has no group of this name."""

    hint_default = "create it first: gallery.create_group(name)"


class RecordNotFound(FacecoreError):
    """The gallery has no face of this id."""


class UserExists(FacecoreError):
    """The group already holds a face of this user."""

    hint_default = 'use on_existing="add" or "replace"'


class WrongKey(FacecoreError):
    """The key is missing or wrong, or was given for a gallery that is not encrypted."""

    hint_default = "give its key: key= in Python, or --gallery-key-file in a command"


class IndexCorrupt(FacecoreError):
    """The files of a saved index are damaged; the templates are not affected."""

    hint_default = "rebuild the index from the stored templates"
