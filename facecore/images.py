"""Anything a caller holds, turned into upright 8-bit BGR pixels.

Every limit on untrusted bytes lives here, and each is checked before a pixel is decoded: the
bytes while they are read, the pixels from the file's header, and, because decoders fill what is
missing with grey, that the file is there to its end.

JPEG, PNG and WebP are decoded by OpenCV, the faster of the two; Pillow reads headers and metadata
and decodes the rest (BMP, TIFF, animated WebP, grey PNG with a transparent value). A transparent
pixel shows white. Of an animation or a multi-page file, the first frame is taken.
"""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError, ImageTooLarge, InvalidParameter, UnreadableImage
from facecore.picture import Picture
from facecore.workers import aside

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageFile

__all__ = [
    "DEFAULT_LIMITS",
    "ImageInput",
    "Limits",
    "is_independent",
    "load",
    "open_picture",
    "read",
]

# A string, so that importing this module imports neither Pillow nor OpenCV.
ImageInput: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"
    " | PIL.Image.Image | NDArray[np.uint8] | Picture"
)
_ACCEPTED = "give a path, bytes, a binary file, a PIL.Image or a (H, W, 3) uint8 array in BGR order"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an input may cost before it is refused.

    Parameters
    ----------
    max_bytes : int
        Largest encoded input. 20 MiB holds what phones write at full quality.
    max_pixels : int
        Largest width × height. 80 million passes 64-megapixel phones and A3 scans at 600 dpi,
        costs 240 MB decoded, and lies below the size at which Pillow starts to warn.

    Raises
    ------
    InvalidParameter
        If a limit is not a positive integer.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 80_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidParameter(f"{field.name} must be a positive integer, not {value!r}")


DEFAULT_LIMITS = Limits()


def load(image: ImageInput, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode an image and turn it upright.

    Parameters
    ----------
    image : path, bytes-like, binary file, PIL.Image.Image or ndarray
        JPEG, PNG, WebP, BMP or TIFF data are turned by their EXIF orientation, and so is a
        ``PIL.Image`` that carries one. A file is read from where it stands to its end. An array
        is (H, W, 3) uint8 in BGR order and taken to be upright.
    limits : Limits, optional
        Bytes and pixels to accept.

    Returns
    -------
    (H, W, 3) uint8 ndarray
        BGR, C-contiguous. A contiguous array that was passed in is returned itself, not a copy.

    Raises
    ------
    UnreadableImage
        If there is no such file, or it is empty, incomplete, damaged or of another format.
    ImageTooLarge
        If the input exceeds a limit.
    InvalidParameter
        If `image` is of another type, or an array of another shape or dtype.

    Notes
    -----
    16-bit samples are divided by 257 and rounded, except in colour TIFFs, where Pillow keeps the
    high byte (at most one level lower). 32-bit grey is accepted where its scale is certain:
    integers in 0..65535, floats in 0..1.

    Damage is found where the format can show it: always in PNG (checksums), in JPEG and WebP
    where the structure is hurt. A wrong byte inside a JPEG's or WebP's coded pixels decodes to
    wrong pixels, as it does everywhere else.
    """
    return open_picture(image, limits).pixels()


def is_independent(image: object) -> bool:
    """Whether another thread may read it: not of a file that is open, or an image of Pillow's."""
    return isinstance(
        image, str | os.PathLike | bytes | bytearray | memoryview | Picture | np.ndarray
    )


def open_picture(image: ImageInput, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Check an image, and decode it when it is looked at.

    Parameters and errors are those of `load`; of the errors, those of damaged pixels are raised
    by the `Picture` when it decodes them.  A `Picture` is returned as it is.
    """
    if isinstance(image, Picture):
        _check_pixels((image.width, image.height), limits)
        return image
    if isinstance(image, np.ndarray):
        return Picture.of(_from_array(image, limits))
    # Whoever holds a PIL image has imported it; while another thread still does, the class is
    # not there yet.
    pillow_image = getattr(sys.modules.get("PIL.Image"), "Image", None)
    if pillow_image is not None and isinstance(image, pillow_image):
        _check_pixels(image.size, limits)
        with _decoder_errors(), aside():
            return Picture.of(_from_pillow(image))
    data = read(image, limits)
    with _decoder_errors():
        return _from_encoded(data, limits)


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Turn what decoders raise on hostile bytes, which is nearly anything, into one error."""
    try:
        yield
    except FacecoreError:
        raise
    except Exception as error:
        if type(error).__name__ == "DecompressionBombError":
            raise ImageTooLarge(f"Pillow refuses the image: {error}") from error
        reason = str(error).strip() or type(error).__name__
        raise UnreadableImage(f"the image cannot be decoded: {reason}") from error


def _check_bytes(size: int, limits: Limits) -> None:
    if size > limits.max_bytes:
        raise ImageTooLarge(f"{size:,} bytes exceed the limit of {limits.max_bytes:,}")


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImage(f"the image has no pixels ({width}×{height})")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"{width * height:,} pixels ({width}×{height}) exceed the limit of "
            f"{limits.max_pixels:,}"
        )


def _from_array(array: NDArray[Any], limits: Limits) -> NDArray[np.uint8]:
    if array.size == 0:
        raise UnreadableImage(f"the array has no pixels (shape {array.shape})")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        if array.dtype != np.uint8:
            hint = "scale the values to 0..255, then .astype(np.uint8)"
        elif array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
            hint = "convert grey with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)"
        elif array.ndim == 3 and array.shape[2] == 4:
            hint = "drop the alpha channel with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)"
        elif array.ndim == 3 and array.shape[0] == 3:
            hint = "move the channels last with image.transpose(1, 2, 0)"
        else:
            hint = "give one image at a time, channels last"
        raise InvalidParameter(
            f"an array must be (H, W, 3) uint8 in BGR order, not {array.shape} {array.dtype}", hint
        )
    _check_pixels((array.shape[1], array.shape[0]), limits)
    return np.ascontiguousarray(array)


def read(image: object, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Bytes of an encoded input; never more than one byte beyond the limit is read.

    Raises
    ------
    UnreadableImage, ImageTooLarge, InvalidParameter
        As in `load`; nothing is decoded.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        _check_bytes(memoryview(image).nbytes, limits)
        data = bytes(image)
    elif isinstance(image, str | os.PathLike):
        if isinstance(image, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", image):
            raise UnreadableImage(
                f"{image[:80]!r} is a URL", "facecore never downloads; fetch it and give the bytes"
            )
        try:
            with aside(), open(image, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                _check_bytes(size, limits)
                data = _read_stream(file, limits, size)
        except FileNotFoundError as error:
            hint = "check the path"
            raise UnreadableImage(f"no such file: {str(image)[:200]!r}", hint) from error
        except (OSError, ValueError) as error:  # a directory, no permission, a NUL in the name
            if isinstance(error, FacecoreError):
                raise
            reason = getattr(error, "strerror", None) or error
            hint = "give the path of a file that can be read"
            raise UnreadableImage(f"cannot read {str(image)[:200]!r}: {reason}", hint) from error
    elif callable(getattr(image, "read", None)):
        data = _read_stream(image, limits)
    else:
        raise InvalidParameter(f"an image cannot be a {type(image).__name__}", _ACCEPTED)
    if not data:
        raise UnreadableImage(
            "the image is empty: 0 bytes", "give the whole file; a file that was read needs seek(0)"
        )
    return data


def _read_stream(stream: Any, limits: Limits, expected: int = 2**20) -> bytes:
    """Read to the end, which lies within the limit; at first no more than is expected there.

    A buffer of the limit's size would be made and given back each time, for which threads wait.
    """
    chunks: list[bytes | bytearray] = []
    size = 0
    while size <= limits.max_bytes:  # a raw stream may return less than was asked for
        try:
            most = 2**16 if chunks else expected + 1
            chunk = stream.read(min(most, limits.max_bytes + 1 - size))
        except Exception as error:
            hint = "give a binary file that is open for reading"
            raise UnreadableImage(f"the file cannot be read: {error}", hint) from error
        if chunk is not None and not isinstance(chunk, bytes | bytearray):
            raise InvalidParameter(
                f"the file's read() returned {type(chunk).__name__}, not bytes",
                "open the file in binary mode, 'rb'",
            )
        if not chunk:
            return bytes(chunks[0]) if len(chunks) == 1 else b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
    raise ImageTooLarge(f"more than {limits.max_bytes:,} bytes, which is the limit")


_REDUCTIONS = (2, 4, 8)  # what a JPEG's decoder can do


def _from_encoded(data: bytes, limits: Limits) -> Picture:
    if data.startswith(b"\xff\xd8\xff"):
        size, layers, orientation = _read_jpeg(data, limits)
    else:
        header = _open(data)
        _check_pixels(header.size, limits)
        if header.format == "PNG":
            with aside():
                _check_png(data, header)
        elif header.format == "TIFF":
            _check_tiff(header)
        if not _opencv_reads(header):
            with aside():
                return Picture.of(_from_pillow(header))
        size, layers, orientation = header.size, 0, _orientation(header)
    swap, flip = _TURNS.get(orientation, _UPRIGHT)

    def decode(reduction: int) -> NDArray[np.uint8]:
        with _decoder_errors():
            pixels = _to_bgr8(_decode_opencv(data, size, reduction))
            return _upright(pixels, orientation)

    width, height = size
    sides = (width, height) if swap else (height, width)
    if layers not in (1, 3):  # no JPEG, or one in CMYK
        return Picture(*sides, decode)
    # A block that is cut off must be the last, and a flip would make it the first.
    flipped = []
    if flip in (1, -1):
        flipped.append(height if swap else width)
    if flip in (0, -1):
        flipped.append(width if swap else height)
    whole = [r for r in _REDUCTIONS if not any(side % r for side in flipped)]
    return Picture(*sides, decode, reductions=whole)


# What a file starts with -> the Pillow plugin that reads it; nothing else is tried.
_SIGNATURES = (
    (re.compile(rb"\xff\xd8\xff"), "Jpeg"),  # of a phone's MPO, the first picture
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "Png"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WebP"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "Tiff"),
    (re.compile(rb"BM"), "Bmp"),
)


def _open(data: bytes) -> PIL.ImageFile.ImageFile:
    """Header of an encoded image; nothing is decoded.

    ``PIL.Image.open`` would import and ask forty other plugins, and turns a big image into a
    process-wide warning before its size can be read.
    """
    for signature, name in _SIGNATURES:
        if signature.match(data):
            plugin = getattr(import_module(f"PIL.{name}ImagePlugin"), f"{name}ImageFile")
            header: PIL.ImageFile.ImageFile = plugin(io.BytesIO(data))
            return header
    raise UnreadableImage(f"not a known image format: starts with {data[:8]!r}")


_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # FF00 is data; 01, D0–D7 bear no length
_JPEG_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_AFTER_SCAN = frozenset([0xC4, 0xCC, *range(0xDA, 0xDE), *range(0xE0, 0xF0), 0xFE])
_JPEG_MAX_SCANS = 100  # encoders write about ten; thousands are an attack on the decoder's time


def _read_jpeg(data: bytes, limits: Limits) -> tuple[tuple[int, int], int, int]:
    """Size, layers and orientation; walks the segments to the end-of-image marker.

    Some builds of OpenCV fill a cut JPEG with grey and report success. What follows the end
    (a second picture, a maker's notes) does no harm.
    """
    size, layers, described = (0, 0), 0, False
    position, scans = 2, 0
    while marker := _JPEG_MARKER.search(data, position):
        kind, position = data[marker.end() - 1], marker.end()
        if kind == 0xD9:
            if not layers:
                raise UnreadableImage("the JPEG is damaged: it has no frame")
            return size, layers, _orientation(_open(data)) if described else 1
        if scans and kind not in _JPEG_AFTER_SCAN:
            raise UnreadableImage(f"the JPEG is damaged: marker FF{kind:02X} inside its pixels")
        if kind in _JPEG_FRAME:
            if len(data) < position + 8 or data[position : position + 2] < b"\0\x08":
                raise UnreadableImage("the JPEG is damaged: its frame header is cut off")
            _, bits, height, width, layers = struct.unpack_from(">HBHHB", data, position)
            if bits != 8 or layers not in (1, 3, 4):
                raise UnreadableImage(
                    f"the JPEG has {layers} layers of {bits} bits",
                    "save it as ordinary JPEG or PNG",
                )
            _check_pixels(size := (width, height), limits)
        described |= kind == 0xE1  # APP1: EXIF or XMP
        scans += kind == 0xDA
        if scans > _JPEG_MAX_SCANS:
            raise ImageTooLarge(f"more than {_JPEG_MAX_SCANS} scans in a JPEG", "save it again")
        position += int.from_bytes(data[position : position + 2])
    raise UnreadableImage("the JPEG is cut off: it has no end-of-image marker")


def _check_png(data: bytes, header: PIL.ImageFile.ImageFile) -> None:
    """Verify every chunk's checksum to the last one; libpng alone would print to stderr."""
    view, position = memoryview(data), 8
    while (end := position + 12 + int.from_bytes(view[position : position + 4])) <= len(data):
        kind = data[position + 4 : position + 8]
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise UnreadableImage(f"the PNG is damaged: wrong checksum of chunk {kind!r}")
        if kind == b"eXIf":  # it may follow the pixels, where Pillow's header does not reach
            header.info.setdefault("exif", b"Exif\0\0" + data[position + 8 : end - 4])
        if kind == b"IEND":
            return
        position = end
    raise UnreadableImage("the PNG is cut off: its last chunk is missing")


def _check_tiff(header: PIL.ImageFile.ImageFile) -> None:
    """Pillow leaves black what no strip or tile of the file covers."""
    boxes = [tile[1] or (0, 0, *header.size) for tile in header.tile]  # None is the whole image
    right, bottom = (max(box[side] for box in boxes) for side in (2, 3))
    if right * bottom < header.width * header.height:  # as areas: a quarter turn swaps the sides
        raise UnreadableImage("the TIFF is damaged: its strips do not cover the image")


def _opencv_reads(header: PIL.ImageFile.ImageFile) -> bool:
    """Whether OpenCV decodes this file to the same pixels as Pillow, in every version."""
    if header.format == "WEBP":
        return not getattr(header, "is_animated", False)
    if header.format == "PNG":
        return not (header.mode in ("1", "L") and "transparency" in header.info)
    return False


def _decode_opencv(data: bytes, size: tuple[int, int], reduction: int) -> NDArray[Any]:
    import cv2

    # UNCHANGED keeps 16 bits and alpha; both leave the orientation to us.
    kind = cv2.IMREAD_UNCHANGED
    if reduction > 1:
        kind = getattr(cv2, f"IMREAD_REDUCED_COLOR_{reduction}") | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
    # Two parsers read the size; they must agree.
    if pixels is None or pixels.shape[1::-1] != tuple(-(-side // reduction) for side in size):
        raise UnreadableImage("the image is damaged: its pixels cannot be decoded")
    return pixels


def _from_pillow(image: PIL.Image.Image) -> NDArray[np.uint8]:
    import cv2

    image.load()
    orientation = _orientation(image)  # only now: Pillow itself turns a TIFF while it loads
    pixels: NDArray[Any]
    if image.mode in ("I", "F"):
        pixels = np.asarray(image)
        high = 65535 if image.mode == "I" else 1
        if not (pixels.min() >= 0 and pixels.max() <= high):  # NaN fails this too
            raise UnreadableImage(
                f"32-bit grey values outside 0..{high}: their scale is not known",
                "convert the image to 8 bits",
            )
        pixels = np.rint(pixels * (65535 / high)).astype(np.uint16)
    elif image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)  # I;16B is big-endian
    elif image.has_transparency_data:
        pixels = cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
    else:
        pixels = cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    return _upright(_to_bgr8(pixels), orientation)


def _to_bgr8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey, BGR or BGRA of 8 or 16 bits -> (H, W, 3) uint8, transparent pixels on white."""
    import cv2

    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)  # 65535 = 257 · 255
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    elif pixels.shape[2] == 4:
        opaque = np.empty((*pixels.shape[:2], 3), np.uint8)
        for top in range(0, len(pixels), 64):  # in bands: the products need 16 bits
            band = pixels[top : top + 64]
            # 255 − (255 − v)·α/255, rounded; stays below 2^16
            product = (255 - band[:, :, :3]) * band[:, :, 3:].astype(np.uint16)
            opaque[top : top + 64] = 255 - (product + 127) // 255
        pixels = opaque
    return pixels


def _orientation(image: PIL.Image.Image) -> int:
    """EXIF orientation; damaged metadata are no reason to refuse good pixels."""
    from PIL import Image

    try:
        # The base method: PngImageFile's own decodes the whole file in search of metadata.
        return int(Image.Image.getexif(image).get(0x0112, 1))
    except Exception:
        return 1


# EXIF orientation -> (swap rows and columns, then flip: 0 rows, 1 columns, −1 both)
_TURNS: dict[int, tuple[bool, int | None]] = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}

_UPRIGHT: tuple[bool, int | None] = (False, None)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    import cv2

    swap, flip = _TURNS.get(orientation, _UPRIGHT)
    turned: NDArray[Any] = cv2.transpose(pixels) if swap else pixels
    return np.ascontiguousarray(turned if flip is None else cv2.flip(turned, flip))
