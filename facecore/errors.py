"""Everything that can go wrong, each with a stable code and a way out."""

from __future__ import annotations

__all__ = [
    "AddressRefused",
    "ArchiveCorrupt",
    "ContractMismatch",
    "DownloadFailed",
    "FaceTooSmall",
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
    "UserExists",
]


class FacecoreError(Exception):
    """Root of all errors that facecore raises on purpose.

    Parameters
    ----------
    message : str
        What was wrong: the limit and what was found, in one line.
    hint : str, optional
        What the caller can do about it, in one line.

    Attributes
    ----------
    code : str
        Stable across releases; the name of the class.
    message, hint : str
    """

    hint_default = ""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint or self.hint_default
        super().__init__(message, self.hint)

    @property
    def code(self) -> str:
        """Stable name of the error, for programs to branch on."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UnreadableImage(FacecoreError):
    """The input is not an image that can be decoded whole."""

    hint_default = "give a complete JPEG, PNG, WebP, BMP, TIFF or JPEG 2000 file"


class ImageTooLarge(FacecoreError):
    """The input exceeds the limit on bytes, pixels or memory."""

    hint_default = "resize the image, or raise the limit with facecore.images.Limits"


class AddressRefused(FacecoreError):
    """The address of a picture is none of http or https, or must not be asked from here."""

    hint_default = "give a public http:// or https:// address without credentials"


class DownloadFailed(FacecoreError):
    """Nothing, or not all of it, came from the address of a picture in time."""

    hint_default = "check the address, or send the picture itself"


class NoFaceDetected(FacecoreError):
    """No face was found, or none whose landmarks allow an alignment."""

    hint_default = "use a picture that shows the whole face, at least 20 pixels wide"


class SeveralFacesDetected(FacecoreError):
    """The picture shows more than one face, and if_many="refuse" was given."""

    hint_default = "use a picture of one person, or cut the face out"


class FaceTooSmall(FacecoreError):
    """The face has too few pixels for what was asked."""

    hint_default = "use a picture in which the face is larger"


class InvalidParameter(FacecoreError, ValueError):
    """An argument has a type, shape or value that is not accepted."""


class MissingExtra(FacecoreError, ImportError):
    """A package that this part of facecore needs, and the rest does not, is not installed."""


class NotCalibrated(FacecoreError):
    """The pack has no table from similarities to scores; similarities are still given."""

    hint_default = "measure a table on pictures of people: facecore calibrate DIR"


class PackNotFound(FacecoreError):
    """The model pack is not installed on this machine."""


class PackCorrupt(FacecoreError):
    """A model pack's manifest or a file of it is not what was published."""


class ProviderUnavailable(FacecoreError):
    """An ONNX Runtime execution provider that was asked for cannot be used."""

    hint_default = "leave providers=None for the CPU"


class ArchiveCorrupt(FacecoreError):
    """A file of exported groups is damaged or cut off, or is something else."""

    hint_default = "export the groups again: facecore group export"


class ContractMismatch(FacecoreError):
    """Templates of two vector spaces met; only those of one contract may be compared."""

    hint_default = "use the pack that the gallery was made with, or enrol the pictures again"


class GalleryCorrupt(FacecoreError):
    """The database of a gallery is damaged."""

    hint_default = "restore the folder from a backup"


class GalleryLocked(FacecoreError):
    """The gallery cannot be changed here: another process writes to it, or it is read-only."""

    hint_default = "one process writes at a time; others open the gallery with read_only=True"


class GalleryNotWritable(FacecoreError):
    """The disk is full or failing, or the folder cannot be written; nothing was changed."""

    hint_default = "free some space, and check who may write to the folder"


class GalleryUnavailable(FacecoreError):
    """The Milvus server of a gallery cannot be reached, or did not do what it was asked."""

    hint_default = "check the address and the server; milvus.io/docs lists its error codes"


class GroupExists(FacecoreError):
    """A group of this name is there already."""


class GroupNotFound(FacecoreError):
    """The gallery has no group of this name."""

    hint_default = "create it first: gallery.create_group(name)"


class RecordNotFound(FacecoreError):
    """The gallery has no face of this id."""


class UserExists(FacecoreError):
    """The group holds a face of this user already."""

    hint_default = 'use on_existing="add" or "replace"'


class IndexCorrupt(FacecoreError):
    """The files of a saved index are not what was written; the templates are not in danger."""

    hint_default = "build the index again from the stored templates"
