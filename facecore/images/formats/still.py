"""A still picture, prepared for a decoder."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import PIL.Image

__all__ = [
    "SWAPS",
    "Still",
    "opencv_memory",
    "orientation_of",
    "pillow_orientation",
    "pillow_size",
    "raw_profile",
]

# EXIF orientations that swap rows and columns.
SWAPS = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class Still:
    """A still picture: the file rebuilt from the parts that decoding needs, and its header.

    Attributes
    ----------
    kind : str
        The format.
    data : bytes
        The rebuilt file.
    width, height : int
        Size in pixels before rotation by the orientation.
    memory : int
        Bytes held at once by decoding, conversion and rotation.
    orientation : int
        EXIF orientation, 1..8.
    colours : int
        Colour channels of a JPEG, otherwise 0.
    transparent : int or None
        Grey value that marks transparent pixels in a PNG, on the scale of the decoded samples.
    doubt : str
        Error message for a JPEG without an end marker, unless decoding shows that all blocks are
        present.
    """

    kind: Literal["JPEG", "PNG", "WebP", "TIFF", "BMP", "JPEG 2000", "HEIF"]
    data: bytes = field(repr=False)
    width: int
    height: int
    memory: int
    orientation: int = 1
    colours: int = 0
    transparent: int | None = None
    doubt: str = ""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width of the upright picture, in pixels."""
        sides = (self.height, self.width)
        return (sides[1], sides[0]) if self.orientation in SWAPS else sides

    @property
    def reductions(self) -> Sequence[int]:
        """Reductions supported by the decoder: 2, 4 and 8 for a JPEG."""
        if self.colours not in (1, 3) or self.doubt:
            return ()
        # A partial block must come last, but a flip would make it the first.
        flipped = []
        if self.orientation in (2, 3, 7, 8):
            flipped.append(self.width)
        if self.orientation in (3, 4, 6, 7):
            flipped.append(self.height)
        return [r for r in (2, 4, 8) if not any(side % r for side in flipped)]


def opencv_memory(pixels: int, each: int, orientation: int) -> int:
    """Return the bytes OpenCV holds at once to decode, convert and rotate pixels of `each` bytes.

    OpenCV 5 copies the decoded pixels; conversion outputs three bytes per pixel.
    """
    return pixels * max(2 * each, each + (3 if each != 3 else 0), 6 if orientation in SWAPS else 0)


def orientation_of(exif: bytes | None, xmp: bytes = b"") -> int:
    r"""Return the EXIF orientation in metadata, or 1 if there is no valid one.

    Parameters
    ----------
    exif : bytes or None
        A TIFF structure, with or without the prefix ``Exif\0\0``. Only the first directory is
        read, so other content costs no time.
    xmp : bytes
        Adobe XMP metadata, used if `exif` holds no orientation.
    """
    return _in_exif(exif or b"") or _in_xmp(xmp) or 1


def pillow_orientation(image: PIL.Image.Image) -> int:
    """Return the EXIF orientation; avoid getexif(), which reads all tags and warns of odd ones."""
    if hasattr(image, "tag_v2"):  # a TIFF, already rotated by Pillow
        return 1
    walked = getattr(image, "_exif", None)  # read, and maybe changed, by the caller
    if walked is not None:
        number = walked.get(0x0112, 1)
        return number if number in range(1, 9) else 1
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    text = image.info.get("Raw profile type exif")
    if not exif and isinstance(text, str):
        exif = raw_profile(text.encode(errors="replace"))
    return orientation_of(
        exif if isinstance(exif, bytes) else None, xmp if isinstance(xmp, bytes) else b""
    )


def pillow_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Return width and height of the upright picture, before it is decoded."""
    width, height = image.size
    return (height, width) if pillow_orientation(image) in SWAPS else (width, height)


def raw_profile(text: bytes) -> bytes | None:
    """Return EXIF data that ImageMagick wrote as hexadecimal text, maybe compressed."""
    if text[:1] == b"\0":  # compressed
        try:
            text = zlib.decompressobj().decompress(text[1:], 2**17)
        except zlib.error:
            return None
    found = re.match(rb"\n?[a-z]+\n *\d+\n([0-9a-f\s]*)", text[: 2**17])
    digits = b"".join(found[1].split()) if found else b""
    return bytes.fromhex(digits[: len(digits) // 2 * 2].decode())


def _in_exif(data: bytes) -> int | None:
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return None
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        return None
    (count,) = struct.unpack_from(order + "H", data, start)
    count = min(count, (len(data) - start - 2) // 12)
    entries = memoryview(data)[start + 2 : start + 2 + 12 * count]
    for tag, kind, values, value in struct.iter_unpack(order + "HHI4s", entries):
        if tag == 0x0112 and kind in (3, 4) and values == 1:
            (number,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), value)
            return number if 1 <= number <= 8 else None
    return None


def _in_xmp(data: bytes) -> int | None:
    found = re.search(rb'tiff:Orientation(?:="|>)([1-8])', data)
    return int(found[1]) if found else None
