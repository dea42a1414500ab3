"""Image containers, checked and rebuilt from the parts that a still picture needs.

Decoders written in C get only these parts, after the size, memory and completeness are checked
here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from facecore.errors import UnreadableImage
from facecore.images.formats.bmp import read_bmp
from facecore.images.formats.heif import heif_kind, heif_size, open_heif, read_heif
from facecore.images.formats.jpeg import read_jpeg
from facecore.images.formats.jpeg2000 import read_jpeg2000
from facecore.images.formats.png import read_png
from facecore.images.formats.still import SWAPS, Still, pillow_orientation, pillow_size
from facecore.images.formats.tiff import read_tiff
from facecore.images.formats.webp import read_webp
from facecore.images.limits import Limits

__all__ = [
    "SWAPS",
    "Still",
    "heif_size",
    "open_heif",
    "pillow_orientation",
    "pillow_size",
    "read_still",
]

_READERS = (
    (re.compile(rb"\xff\xd8\xff"), read_jpeg),  # including a phone's MPO: its first picture
    (re.compile(rb"\x89PNG\r\n\x1a\n"), read_png),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), read_webp),
    (re.compile(rb"(?:II[*+]\0|MM\0[*+]).{4}", re.DOTALL), read_tiff),
    (re.compile(rb"BM"), read_bmp),
    (re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"), read_jpeg2000),
)
# Signature of an unsupported file -> its name and a hint.
_OTHERS = (
    (rb"GIF8[79]a", "a GIF", "save a frame as JPEG or PNG"),
    (rb"%PDF-", "a PDF", "save the page or the picture in it as JPEG or PNG"),
    (rb"\s*(?:<!doctype html|<html)", "an HTML page", "download the picture itself, not the page"),
    (rb"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype )?svg", "an SVG drawing", "export it as PNG"),
    (rb"version https://git-lfs\.github\.com/", "a pointer of Git LFS", "fetch it: git lfs pull"),
    (rb"data:[\w.+-]*/?[\w.+-]*[;,]", "a data URI, not the bytes in it",
     "decode the part after the comma with base64"),
    (rb"(?:/9j/|iVBORw0KGgo|UklGR)[\w+/\s=-]*\Z", "base64 text, not the bytes in it",
     "decode it with base64"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL", "save it as JPEG or PNG"),
    (rb"PK\x03\x04", "a ZIP archive", "unpack it"),
    (rb".{4}ftyp", "a video or a picture of another kind", "save a frame as JPEG or PNG"),
)  # fmt: skip


def read_still(
    data: bytes, limits: Limits, measure: Callable[[bytes], tuple[int, int]] = heif_size
) -> Still:
    """Check and rebuild the still picture of an encoded file, without decoding.

    `measure` returns the upright width and height of a HEIC or AVIF file, whose container is not
    rebuilt.

    Raises
    ------
    UnreadableImage
        The file is damaged, incomplete, or of an unsupported format, named in the message.
    ImageTooLarge
        The picture exceeds a limit.
    """
    for signature, read in _READERS:
        if signature.match(data):
            return read(data, limits)
    if heif_kind(data):
        return read_heif(data, limits, measure)
    start = data[:1024]
    for pattern, name, way in _OTHERS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            raise UnreadableImage(f"not a supported picture but {name}", way)
    raise UnreadableImage(f"not a known image format: starts with {data[:8]!r}")
