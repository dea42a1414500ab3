"""Convert the pictures of a request to faces, with every check in the document's order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pybase64

from facecore._utils.threads import at_once
from facecore.errors import (
    AddressRefused,
    DownloadFailed,
    ImageTooLarge,
    NoFaceDetected,
    UnreadableImage,
    UnrecognizableFace,
)
from facecore.face.sample import FaceSample
from facecore.images import Limits
from facecore.images.picture import Picture
from facecore.images.read import open_regular
from facecore.operations.codes import (
    COMPARE_FACES_ERROR,
    COMPARE_NO_FACE_DETECTED,
    DATA_DUPLICATION,
    DOWNLOAD_TIMEOUT,
    IMAGE_VALUE_PATTERN_ERROR,
    INVALID_PARAMETER,
    NO_FACE_DETECTED,
    TOO_LARGE_IMAGE,
    UNQUALIFIED_PHOTO,
    Code,
    OperationError,
)
from facecore.operations.download import fetch
from facecore.operations.parameters import Given, Upload

if TYPE_CHECKING:
    from facecore.engine import FaceEngine
    from facecore.operations.config import ServiceConfig

__all__ = [
    "COMPARED",
    "ENROLLED",
    "PHOTO",
    "PictureRules",
    "decode_base64",
    "read_faces",
]

_MIB = 2**20
# Memory to decode one of up to three pictures of a request: 44 million pixels of JPEG or PNG.
_MEMORY = 256 * _MIB

# Identify a format by the first bytes of the file: its name may be wrong.
_MAGIC = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n"}


@dataclass(frozen=True, slots=True)
class PictureRules:
    """The pictures that one operation accepts, and its codes for all others.

    Attributes
    ----------
    formats : tuple of str
        Accepted formats; empty for all that the engine reads.
    max_bytes : int
        Largest file, inclusive.
    max_text : int or None
        Most characters of base64, inclusive.
    least, most : (int, int) or None
        Smallest and largest height and width of the upright picture, in pixels, inclusive.
    twice, not_base64, address, download, too_large, unreadable, no_face : Code
        Codes for: a picture given in two ways; text that is not base64; an address that may not
        be fetched; a failed download; too many characters or bytes; a file that is not a picture
        of an accepted format and resolution; a picture without a face.
    """

    formats: tuple[str, ...]
    max_bytes: int
    max_text: int | None
    least: tuple[int, int] | None
    most: tuple[int, int] | None
    twice: Code
    not_base64: Code
    address: Code
    download: Code
    too_large: Code
    unreadable: Code
    no_face: Code


PHOTO = PictureRules(
    formats=("JPEG", "PNG"),
    max_bytes=_MIB,
    max_text=_MIB,
    least=(640, 480),
    most=(1920, 1080),
    twice=DATA_DUPLICATION,
    not_base64=INVALID_PARAMETER,
    address=INVALID_PARAMETER,
    download=DOWNLOAD_TIMEOUT,
    too_large=TOO_LARGE_IMAGE,
    unreadable=UNQUALIFIED_PHOTO,
    no_face=NO_FACE_DETECTED,
)
"""FaceCompare, FaceCrossCompareIntl and FaceDuplicationCheckIntl."""

ENROLLED = PictureRules(
    formats=("JPEG",),
    max_bytes=10 * _MIB,
    max_text=None,
    least=None,
    most=(1920, 1080),
    twice=INVALID_PARAMETER,
    not_base64=INVALID_PARAMETER,
    address=INVALID_PARAMETER,
    download=INVALID_PARAMETER,
    too_large=INVALID_PARAMETER,
    unreadable=INVALID_PARAMETER,
    no_face=NO_FACE_DETECTED,  # answered as Passed=N
)
"""AddFaceRecord."""

COMPARED = PictureRules(
    formats=(),
    max_bytes=2 * _MIB,
    max_text=None,  # the operation counts the whole body
    least=None,
    most=None,
    twice=IMAGE_VALUE_PATTERN_ERROR,  # not reached: a value has one form
    not_base64=IMAGE_VALUE_PATTERN_ERROR,
    address=IMAGE_VALUE_PATTERN_ERROR,
    download=COMPARE_FACES_ERROR,
    too_large=IMAGE_VALUE_PATTERN_ERROR,
    unreadable=IMAGE_VALUE_PATTERN_ERROR,
    no_face=COMPARE_NO_FACE_DETECTED,
)
"""CompareFaces."""


def read_faces(
    ways: Iterable[Sequence[Given]], rules: PictureRules, config: ServiceConfig, engine: FaceEngine
) -> list[FaceSample]:
    """Return the largest face of every picture of a request, embedded.

    The checks run in this order, and the first failure on any picture decides: given twice; text,
    address and download, picture by picture; bytes; format and resolution; face.

    Parameters
    ----------
    ways : iterable of sequence of Given
        The ways in which each picture was given.
    rules : PictureRules
    config : ServiceConfig
    engine : FaceEngine
        Decodes the pictures; its limits apply too.

    Raises
    ------
    OperationError
        The code of the first check that fails.
    """
    # Here, so that a download or upload stops at the engine's limit too.
    rules = replace(rules, max_bytes=min(rules.max_bytes, engine.limits.max_bytes))
    ways = list(ways)
    for given in ways:
        if len(given) > 1:
            names = " and ".join(way.parameter for way in given)
            raise OperationError(rules.twice, f"{names} hold the same picture; give one of them.")
    files = [(given[0].parameter, _fetched(given[0], rules, config)) for given in ways]
    for name, data in files:
        if data is None or len(data) > rules.max_bytes:
            raise OperationError(
                rules.too_large, f"{name} holds more than {rules.max_bytes:,} bytes."
            )

    named = [(name, _checked(name, data or b"", rules, config, engine)) for name, data in files]

    def face(name: str, picture: Picture) -> FaceSample | OperationError:
        try:
            sample = engine.sample(picture)
            engine.embed(sample)  # in this thread, in parallel with the other pictures
        except (UnreadableImage, ImageTooLarge) as error:
            raise OperationError(rules.unreadable, f"{name}: {error.message}.") from error
        # Return, not raise: another picture that cannot be read takes precedence.
        except NoFaceDetected as error:
            return OperationError(rules.no_face, f"{name}: {error.message}.")
        except UnrecognizableFace as error:
            return OperationError(rules.unreadable, f"{name}: {error.message}.")
        return sample

    engine.decode([picture for _, picture in named])
    samples = []
    for found in at_once([partial(face, name, picture) for name, picture in named]):
        if isinstance(found, OperationError):
            raise found
        samples.append(found)
    return samples


def _fetched(given: Given, rules: PictureRules, config: ServiceConfig) -> bytes | None:
    """Return the bytes of one picture; None, or one byte too many, if they exceed the limit."""
    if isinstance(given.value, Upload):
        return _uploaded(given.parameter, given.value, rules)
    if not isinstance(given.value, str):
        raise OperationError(
            rules.not_base64, f"{given.parameter} holds neither text nor a picture."
        )
    if given.kind == "url":
        try:
            return fetch(
                given.value,
                limit=rules.max_bytes,
                timeout=config.download_timeout,
                allow_private=config.allow_private_addresses,
            )
        except ImageTooLarge:
            return None
        except (AddressRefused, DownloadFailed) as error:
            code = rules.address if isinstance(error, AddressRefused) else rules.download
            raise OperationError(code, f"{given.parameter}: {error.message}.") from error
    if rules.max_text is not None and len(given.value) > rules.max_text:
        raise OperationError(
            rules.too_large, f"{given.parameter} has more than {rules.max_text:,} characters."
        )
    try:
        return decode_base64(given.value)
    except ValueError as error:
        reason = "is not base64"
        if given.value[:5].lower() == "data:":
            reason = "is a data URI; give the base64 text that follows its comma"
        elif re.fullmatch(r"[\w=-]+", given.value, re.ASCII):
            reason = "is URL-safe base64; write + for - and / for _"
        raise OperationError(rules.not_base64, f"{given.parameter} {reason}.") from error


def _uploaded(parameter: str, upload: Upload, rules: PictureRules) -> bytes:
    """Read a file, at most one byte more than is allowed."""
    source, most = upload.source, rules.max_bytes + 1
    try:
        if isinstance(source, (str, os.PathLike)):
            with open_regular(source) as file:
                return _stream(file, most)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return bytes(source[:most])
        if callable(getattr(source, "read", None)):
            return _stream(source, most)
    except (OSError, ValueError) as error:  # no such file, a closed one, a NUL in the name
        raise OperationError(rules.not_base64, f"{parameter}: the file cannot be read.") from error
    raise OperationError(rules.not_base64, f"{parameter} holds neither bytes nor a binary file.")


def _stream(file: Any, most: int) -> bytes:
    data = bytearray()
    while len(data) < most:  # a raw stream may return less than was asked for
        chunk = file.read(most - len(data))
        if not chunk:
            break
        if not isinstance(chunk, (bytes, bytearray)):
            raise ValueError("the file was opened as text")
        data += chunk
    return bytes(data)


def _checked(
    name: str, data: bytes, rules: PictureRules, config: ServiceConfig, engine: FaceEngine
) -> Picture:
    if rules.formats and not any(data.startswith(_MAGIC[known]) for known in rules.formats):
        raise OperationError(rules.unreadable, f"{name} is not {' or '.join(rules.formats)}.")
    most = engine.limits.max_pixels
    if rules.most:  # before the pixels are decoded, not after
        most = min(most, rules.most[0] * rules.most[1])
    limits = Limits(rules.max_bytes, most, min(engine.limits.max_memory, _MEMORY))
    try:
        picture = engine.open(data, limits=limits, decode=False)
    except (UnreadableImage, ImageTooLarge) as error:
        raise OperationError(rules.unreadable, f"{name}: {error.message}.") from error
    height, width = picture.height, picture.width
    if not _fits(height, width, rules, config.any_orientation):
        raise OperationError(
            rules.unreadable,
            f"{name} is {height}x{width} pixels (height x width), {_bounds(rules)}.",
        )
    return picture


def _fits(height: int, width: int, rules: PictureRules, any_orientation: bool) -> bool:
    if any_orientation:
        height, width = max(height, width), min(height, width)
    least, most = rules.least or (0, 0), rules.most or (height, width)
    return least[0] <= height <= most[0] and least[1] <= width <= most[1]


def _bounds(rules: PictureRules) -> str:
    words = []
    if rules.least:
        words.append(f"must be at least {rules.least[0]}x{rules.least[1]}")
    if rules.most:
        words.append(f"must be at most {rules.most[0]}x{rules.most[1]}")
    return " and ".join(words)


def decode_base64(text: str) -> bytes:
    r"""Decode base64 text.

    Line breaks are allowed anywhere, and padding may be missing.  A space counts as a plus sign:
    form decoding turns an unescaped plus sign into a space.

    Raises
    ------
    ValueError
        Any other character, padding inside the text, or no text at all.

    Examples
    --------
    >>> decode_base64("+/8=") == decode_base64(" /8") == decode_base64("+/\n8=")
    True
    """
    try:
        data = pybase64.b64decode(text, validate=True)
    except ValueError:
        text = re.sub(r"[\r\n]+", "", text).replace(" ", "+")
        core = text.rstrip("=")
        if len(text) - len(core) > 2:
            raise ValueError("too much padding") from None
        data = pybase64.b64decode(core + "=" * (-len(core) % 4), validate=True)
    if not data:
        raise ValueError("no data")
    return data
