"""Everything that can go wrong, each with a stable code and a way out."""

from __future__ import annotations

__all__ = [
    "AddressRefused",
    "DownloadFailed",
    "FacecoreError",
    "ImageTooLarge",
    "InvalidParameter",
    "MissingExtra",
    "NoFaceDetected",
    "PackCorrupt",
    "PackNotFound",
    "ProviderUnavailable",
    "UnreadableImage",
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

    hint_default = "give a complete JPEG, PNG, WebP, BMP or TIFF file"


class ImageTooLarge(FacecoreError):
    """The input exceeds the limit on bytes or pixels."""

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


class InvalidParameter(FacecoreError, ValueError):
    """An argument has a type, shape or value that is not accepted."""


class MissingExtra(FacecoreError, ImportError):
    """A package that this part of facecore needs, and the rest does not, is not installed."""


class PackNotFound(FacecoreError):
    """The model pack is not installed on this machine."""


class PackCorrupt(FacecoreError):
    """A model pack's manifest or a file of it is not what was published."""


class ProviderUnavailable(FacecoreError):
    """An ONNX Runtime execution provider that was asked for cannot be used."""

    hint_default = "leave providers=None for the CPU"
