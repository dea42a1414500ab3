"""Container checks: a file's size, orientation and completeness, before a pixel is decoded."""

from __future__ import annotations

import io
import re
import struct
import zlib
from importlib import import_module
from typing import TYPE_CHECKING

from facecore.errors import ImageTooLarge, UnreadableImage
from facecore.images.limits import Limits, check_pixels

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageFile

__all__ = [
    "check_png",
    "check_tiff",
    "exif_orientation",
    "open_header",
    "opencv_reads",
    "read_jpeg",
]

# What a file starts with -> the Pillow plugin that reads it; nothing else is tried.
_SIGNATURES = (
    (re.compile(rb"\xff\xd8\xff"), "Jpeg"),  # of a phone's MPO, the first picture
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "Png"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WebP"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "Tiff"),
    (re.compile(rb"BM"), "Bmp"),
)


def open_header(data: bytes) -> PIL.ImageFile.ImageFile:
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


def read_jpeg(data: bytes, limits: Limits) -> tuple[tuple[int, int], int, int]:
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
            return size, layers, exif_orientation(open_header(data)) if described else 1
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
            check_pixels(size := (width, height), limits)
        described |= kind == 0xE1  # APP1: EXIF or XMP
        scans += kind == 0xDA
        if scans > _JPEG_MAX_SCANS:
            raise ImageTooLarge(f"more than {_JPEG_MAX_SCANS} scans in a JPEG", "save it again")
        position += int.from_bytes(data[position : position + 2])
    raise UnreadableImage("the JPEG is cut off: it has no end-of-image marker")


def check_png(data: bytes, header: PIL.ImageFile.ImageFile) -> None:
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


def check_tiff(header: PIL.ImageFile.ImageFile) -> None:
    """Pillow leaves black what no strip or tile of the file covers."""
    boxes = [tile[1] or (0, 0, *header.size) for tile in header.tile]  # None is the whole image
    right, bottom = (max(box[side] for box in boxes) for side in (2, 3))
    if right * bottom < header.width * header.height:  # as areas: a quarter turn swaps the sides
        raise UnreadableImage("the TIFF is damaged: its strips do not cover the image")


def opencv_reads(header: PIL.ImageFile.ImageFile) -> bool:
    """Whether OpenCV decodes this file to the same pixels as Pillow, in every version."""
    if header.format == "WEBP":
        return not getattr(header, "is_animated", False)
    if header.format == "PNG":
        return not (header.mode in ("1", "L") and "transparency" in header.info)
    return False


def exif_orientation(image: PIL.Image.Image) -> int:
    """EXIF orientation; damaged metadata are no reason to refuse good pixels."""
    from PIL import Image

    try:
        # The base method: PngImageFile's own decodes the whole file in search of metadata.
        return int(Image.Image.getexif(image).get(0x0112, 1))
    except Exception:
        return 1
