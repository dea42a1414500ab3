"""Rebuild a JPEG from its frame, tables and scans; drop everything else."""

from __future__ import annotations

import re
import struct

from facecore.errors import ImageTooLarge, UnreadableImage
from facecore.images.formats.still import Still, opencv_memory, orientation_of
from facecore.images.limits import Limits, check_memory, check_parts, check_pixels

__all__ = ["read_jpeg"]

_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # FF00 is data; 01, D0–D7 have no length
_END, _SCAN, _APP1 = 0xD9, 0xDA, 0xE1
# Huffman and arithmetic tables, quantisation, restart interval.
_TABLES = frozenset([0xC4, 0xCC, 0xDB, 0xDD])
_SEQUENTIAL = frozenset([0xC0, 0xC1, 0xC9])
_PROGRESSIVE = frozenset([0xC2, 0xCA])
_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - _SEQUENTIAL - _PROGRESSIVE - _TABLES - {0xC8}
_LEFT_OUT = frozenset([0xDC, *range(0xE0, 0xF0), 0xFE])  # number of lines, APPn, comment
_FRAMES = _SEQUENTIAL | _PROGRESSIVE | _OTHER_FRAMES
_KEPT = _TABLES | _SEQUENTIAL | _PROGRESSIVE | {_SCAN}
_AFTER_SCAN = _TABLES | _LEFT_OUT | {_SCAN}
_MAX_SCANS = 100  # encoders write about ten; thousands would stall the decoder
_MAX_SCANNED = 1_600_000_000  # pixels × scans, for the same reason
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def read_jpeg(data: bytes, limits: Limits) -> Still:
    """Check a JPEG and rebuild it from its frame, tables and scans.

    Some builds of OpenCV fill a truncated JPEG with grey and report success.  So this function
    follows the segments to the end marker, and drops later data (a second picture, maker notes).
    If a scan of a sequential JPEG runs to the end of the file or into other data, decoding must
    show that all blocks are present (`Still.doubt`).
    """
    view = memoryview(data)  # slices of it copy nothing
    parts: list[bytes | memoryview] = [b"\xff\xd8"]
    frame = b""
    scanned: set[int] = set()  # components
    progressive = jfif = adobe = False
    exif: bytes | None = None
    xmp = b""
    position, scans, segments = 2, 0, 0
    problem = "the JPEG is cut off: it has no end-of-image marker"
    while marker := _MARKER.search(data, position):
        kind, start = data[marker.end() - 1], marker.end()
        segments += 1
        check_parts(segments)
        if scans:
            parts.append(view[position : marker.start()])
        if kind == _END:
            problem = ""
            break
        if scans and kind not in _AFTER_SCAN:
            problem = f"the JPEG is damaged: marker FF{kind:02X} inside its pixels"
            break
        length = int.from_bytes(data[start : start + 2])
        segment, position = data[start + 2 : start + length], start + length
        if kind in _FRAMES:
            if frame:
                raise UnreadableImage("the JPEG is damaged: it has two frames")
            if len(segment) < 6 or len(segment) != length - 2:
                raise UnreadableImage("the JPEG is damaged: its frame header is cut off")
            frame, progressive = segment, kind in _PROGRESSIVE
            _check_frame(frame, kind, limits)
        if length < 2 or position > len(data):
            raise UnreadableImage("the JPEG is cut off inside a segment")
        if kind == _SCAN:
            if not frame:
                raise UnreadableImage("the JPEG is damaged: it has no frame")
            scans += 1
            scanned.update(segment[1:-3:2])
            if scans > _MAX_SCANS:
                raise ImageTooLarge(f"more than {_MAX_SCANS} scans in a JPEG", "save it again")
        if kind == 0xE0 and segment.startswith(b"JFIF\0"):
            # Decoders derive the colour space from the JFIF and Adobe segments.
            parts += [] if jfif else [b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"]
            jfif = True
        elif kind == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            parts += [] if adobe else [b"\xff\xee\0\x0e", segment[:12]]
            adobe = True
        elif kind == _APP1 and segment.startswith(_EXIF):
            exif = segment if exif is None else exif
        elif kind == _APP1 and segment.startswith(_XMP):
            xmp = xmp or segment
        elif kind not in _LEFT_OUT:
            if kind not in _KEPT:
                raise UnreadableImage(f"the JPEG is damaged: marker FF{kind:02X} in its header")
            parts.append(view[start - 2 : position])
    else:
        if scans:  # an interrupted download may leave zeros
            parts.append(data[position:].rstrip(b"\0"))
    if not problem and not frame:
        raise UnreadableImage("the JPEG is damaged: it has no frame")
    if not problem and not scans:
        raise UnreadableImage("the JPEG is damaged: it has no pixels")
    if problem and (not scans or progressive):
        raise UnreadableImage(problem)
    if not scanned.issuperset(frame[6::3][: frame[5]]):  # a decoder would fill it with grey
        raise UnreadableImage("the JPEG is damaged: a component has no scan")
    parts.append(b"\xff\xd9")
    _, height, width, layers = struct.unpack_from(">BHHB", frame)
    orientation = orientation_of(exif, xmp)
    pixels = width * height
    if scans * pixels > _MAX_SCANNED:
        raise ImageTooLarge(f"{scans} scans over {pixels:,} pixels in a JPEG", "save it again")
    memory = opencv_memory(pixels, 3, orientation) + (3 * pixels if problem else 0)
    if progressive or scans > 1:  # the decoder holds all coefficients, two bytes each
        memory = max(memory, 4 * pixels + 2 * _samples(frame, pixels))
    check_memory((width, height), memory, limits, len(data))
    return Still("JPEG", b"".join(parts), width, height, memory, orientation, layers, doubt=problem)


def _check_frame(frame: bytes, kind: int, limits: Limits) -> None:
    bits, height, width, layers = struct.unpack_from(">BHHB", frame)
    if kind in _OTHER_FRAMES or bits != 8 or layers not in (1, 3, 4):
        coding = ", lossless or hierarchical" if kind in _OTHER_FRAMES else ""
        raise UnreadableImage(
            f"the JPEG has {layers} components of {bits} bits{coding}",
            "save it as ordinary JPEG or PNG",
        )
    if len(frame) < 6 + 3 * layers:
        raise UnreadableImage("the JPEG is damaged: its frame header is cut off")
    check_pixels((width, height), limits)


def _samples(frame: bytes, pixels: int) -> int:
    """Return the number of samples of all layers, each at its resolution."""
    factors = [(byte >> 4) * (byte & 15) for byte in frame[7::3][: frame[5]]]
    return pixels * sum(factors) // max(max(factors), 1) + 1
