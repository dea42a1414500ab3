"""Rebuild a PNG from header, palette, transparency and pixels; drop everything else."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from facecore.errors import UnreadableImage
from facecore.images.formats.still import Still, opencv_memory, orientation_of, raw_profile
from facecore.images.limits import Limits, check_memory, check_parts, check_pixels

__all__ = ["read_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
# Colour type -> channels in the file, and possible bits per sample.
_SAMPLES = {
    _GREY: (1, (1, 2, 4, 8, 16)),
    _RGB: (3, (8, 16)),
    _PALETTE: (1, (1, 2, 4, 8)),
    _GREY_ALPHA: (2, (8, 16)),
    _RGBA: (4, (8, 16)),
}
_DEFLATE_MOST = 1032  # maximum expansion of deflate


def read_png(data: bytes, limits: Limits) -> Still:
    """Check the checksums of all chunks and rebuild the still picture.

    Animation frames, text, colour profiles and times never reach a decoder.
    """
    header = palette = transparency = b""
    pixels: list[memoryview] = []
    exif: bytes | None = None
    text: dict[bytes, bytes] = {}
    previous = b""
    for kind, content in _chunks(data):
        if (kind == b"IHDR") != (not previous):
            raise UnreadableImage("the PNG is damaged: its header is not its first chunk")
        if kind == b"IHDR":
            header = bytes(content)
            _check_header(header, limits)
        elif kind == b"PLTE":
            if palette or pixels:
                raise UnreadableImage("the PNG is damaged: it has a second or late palette")
            palette = bytes(content)
        elif kind == b"tRNS" and not pixels:
            transparency = bytes(content)
        elif kind == b"IDAT":
            if pixels and previous != b"IDAT":
                raise UnreadableImage("the PNG is damaged: its pixels are interrupted")
            pixels.append(content)
        elif kind == b"eXIf":  # before the pixels or after
            exif = exif or bytes(content)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            name = bytes(content[:64]).partition(b"\0")[0]
            if name in (b"XML:com.adobe.xmp", b"Raw profile type exif"):
                text.setdefault(name, bytes(content[len(name) + 1 :]))
        elif not kind[0] & 0x20 and kind != b"IEND":  # an upper-case first letter: critical
            raise UnreadableImage(f"the PNG has an unknown critical chunk: {kind!r}")
        previous = kind
    if not pixels:
        raise UnreadableImage("the PNG is damaged: it has no pixels")
    width, height, bits, colour, *_ = struct.unpack(">IIBBBBB", header)
    orientation = orientation_of(
        exif or raw_profile(text.get(b"Raw profile type exif", b"")),
        text.get(b"XML:com.adobe.xmp", b""),
    )
    chunks = [(b"IHDR", header)]
    transparent = None
    if colour == _PALETTE:
        if not palette or len(palette) % 3 or len(palette) > 3 << bits:
            raise UnreadableImage("the PNG is damaged: its palette is missing or of a wrong size")
        chunks.append((b"PLTE", palette))
        if transparency:
            chunks.append((b"tRNS", transparency[: len(palette) // 3]))
    elif colour == _RGB and len(transparency) == 6:
        chunks.append((b"tRNS", transparency))
    elif colour == _GREY and len(transparency) == 2:
        transparent = int.from_bytes(transparency)
        if bits < 16:  # decoders scale samples to 8 bits
            transparent = (transparent & (1 << bits) - 1) * 255 // ((1 << bits) - 1)
    packed = b"".join(pixels)
    channels, _ = _SAMPLES[colour]
    size = height * (1 + (width * channels * bits + 7) // 8)
    if size > _DEFLATE_MOST * (len(packed) + 16):
        raise UnreadableImage("the PNG is cut off: it has too few bytes for its pixels")
    decoded = {_GREY: 1, _RGB: 3, _PALETTE: 3, _GREY_ALPHA: 4, _RGBA: 4}[colour]
    if len(chunks) == 3 or (colour == _RGB and len(chunks) == 2):
        decoded = 4
    memory = opencv_memory(width * height, decoded * (2 if bits == 16 else 1), orientation)
    memory += len(packed) + 4 * (size // height)  # the last term: rows being unfiltered
    check_memory((width, height), memory, limits, len(data))
    chunks += [(b"IDAT", packed), (b"IEND", b"")]
    rebuilt = _SIGNATURE + b"".join(_chunk(*chunk) for chunk in chunks)
    return Still("PNG", rebuilt, width, height, memory, orientation, transparent=transparent)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, position, count = memoryview(data), len(_SIGNATURE), 0
    while (end := position + 12 + int.from_bytes(view[position : position + 4])) <= len(data):
        kind = data[position + 4 : position + 8]
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise UnreadableImage(f"the PNG is damaged: wrong checksum of chunk {kind!r}")
        yield kind, view[position + 8 : end - 4]
        if kind == b"IEND":
            return
        position, count = end, count + 1
        check_parts(count)
    raise UnreadableImage("the PNG is cut off: its last chunk is missing")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join(
        [len(content).to_bytes(4), kind, content, zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)]
    )


def _check_header(header: bytes, limits: Limits) -> None:
    if len(header) != 13:
        raise UnreadableImage("the PNG is damaged: its header has a wrong size")
    width, height, bits, colour, packing, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if colour not in _SAMPLES or bits not in _SAMPLES[colour][1]:
        raise UnreadableImage(f"the PNG is damaged: colour type {colour} with {bits} bits")
    if packing or filtering or interlace > 1:
        raise UnreadableImage("the PNG is damaged: unknown compression, filter or interlacing")
    check_pixels((width, height), limits)
