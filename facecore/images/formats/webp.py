"""Rebuild a WebP from bit stream and alpha channel of one picture; drop everything else."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from facecore.errors import UnreadableImage
from facecore.images.formats.still import Still, opencv_memory, orientation_of
from facecore.images.limits import Limits, check_memory, check_parts, check_pixels

__all__ = ["read_webp"]

_ANIMATED = 0x02
_ALPHA = 0x10


def read_webp(data: bytes, limits: Limits) -> Still:
    """Check the chunks of a WebP and rebuild the still picture or the first frame."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise UnreadableImage("the WebP is cut off")
    chunks = list(_chunks(data, 12, end))
    canvas = None
    animated = False
    if chunks and chunks[0][0] == b"VP8X":
        extended = chunks[0][1]
        if len(extended) < 10:
            raise UnreadableImage("the WebP is damaged: its header is cut off")
        animated = bool(extended[0] & _ANIMATED)
        canvas = _size24(extended, 4)
        check_pixels(canvas, limits)
    parts = chunks
    if animated:
        frame = next((content for kind, content in chunks if kind == b"ANMF"), b"")
        if len(frame) < 16 or any(frame[:6]) or _size24(frame, 6) != canvas:
            raise UnreadableImage(
                "the animated WebP has no first frame that fills the picture",
                "save one frame as a still picture",
            )
        parts = list(_chunks(frame, 16, len(frame)))
    found = dict(reversed(parts))  # keeps the first of each kind
    pixels, kind = found.get(b"VP8L"), b"VP8L"
    if pixels is None:
        pixels, kind = found.get(b"VP8 ", b""), b"VP8 "
    size, alpha = _lossless(pixels) if kind == b"VP8L" else (_lossy(pixels), b"ALPH" in found)
    if canvas is not None and size != canvas:
        raise UnreadableImage("the WebP is damaged: its headers disagree on its size")
    check_pixels(size, limits)
    width, height = size
    if kind == b"VP8 " and alpha:
        flags = bytes([_ALPHA, 0, 0, 0])
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body = _chunk(b"VP8X", flags + sides) + _chunk(b"ALPH", found[b"ALPH"])
    else:
        body = b""
    body += _chunk(kind, pixels)
    file = b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body
    metadata = dict(reversed(chunks))
    orientation = orientation_of(metadata.get(b"EXIF"), metadata.get(b"XMP ", b""))
    count = width * height
    # In lossless mode, libwebp holds four bytes per pixel in addition to the result.
    memory = opencv_memory(count, 4 if alpha else 3, orientation)
    memory = max(memory, 7 * count if kind == b"VP8L" else 0) + len(pixels)
    check_memory(size, memory, limits, len(data))
    return Still("WebP", file, width, height, memory, orientation)


def _chunks(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    count = 0
    while start + 8 <= end:
        check_parts(count := count + 1)
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        if start + 8 + size > end:
            raise UnreadableImage("the WebP is cut off inside a chunk")
        yield data[start : start + 4], data[start + 8 : start + 8 + size]
        start += 8 + size + size % 2


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


def _size24(content: bytes, start: int) -> tuple[int, int]:
    width, height = (int.from_bytes(content[i : i + 3], "little") + 1 for i in (start, start + 3))
    return width, height


def _lossy(pixels: bytes) -> tuple[int, int]:
    if len(pixels) < 10 or pixels[0] & 1 or pixels[3:6] != b"\x9d\x01\x2a":
        raise UnreadableImage("the WebP is damaged: it has no picture")
    width, height = struct.unpack_from("<HH", pixels, 6)
    return width & 0x3FFF, height & 0x3FFF


def _lossless(pixels: bytes) -> tuple[tuple[int, int], bool]:
    if len(pixels) < 5 or pixels[0] != 0x2F:
        raise UnreadableImage("the WebP is damaged: it has no picture")
    bits = int.from_bytes(pixels[1:5], "little")
    return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), bool(bits >> 28 & 1)
