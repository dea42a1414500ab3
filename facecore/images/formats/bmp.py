"""Rebuild a BMP from its header, colour masks, palette and rows; drop everything else."""

from __future__ import annotations

import struct

from facecore.errors import UnreadableImage
from facecore.images.formats.still import Still
from facecore.images.limits import Limits, check_memory, check_pixels

__all__ = ["read_bmp"]

_RGB, _BITFIELDS, _ALPHA_BITFIELDS = 0, 3, 6
_HEADERS = (12, 40, 52, 56, 64, 108, 124)


def read_bmp(data: bytes, limits: Limits) -> Still:
    """Check a BMP, and rebuild it from its size, masks, palette and rows."""
    if len(data) < 26:
        raise UnreadableImage("the BMP is cut off inside its header")
    (start,) = struct.unpack_from("<I", data, 10)
    (header,) = struct.unpack_from("<I", data, 14)
    if header not in _HEADERS or len(data) < 14 + header:
        raise UnreadableImage(f"the BMP is damaged: its header has {header} bytes")
    compression, used = _RGB, 0
    if header == 12:
        width, height, planes, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (used,) = struct.unpack_from("<I", data, 46)
    rows = abs(height)
    check_pixels((width, rows), limits)
    masked = compression in (_BITFIELDS, _ALPHA_BITFIELDS) and bits in (16, 32)
    if planes != 1 or not (masked or compression == _RGB) or bits not in (1, 4, 8, 16, 24, 32):
        raise UnreadableImage(
            f"the BMP has unsupported pixels: {bits} bits, compression {compression}",
            "save it as JPEG or PNG",
        )
    after = 14 + header
    masks = b""
    if masked:
        size = 16 if header >= 56 or compression == _ALPHA_BITFIELDS else 12
        masks = data[54 : 54 + size].ljust(16, b"\0")
        after = max(after, 54 + size)
    palette = b""
    if bits <= 8:
        each = 3 if header == 12 else 4
        colours = min(used or 1 << bits, 1 << bits, max(start - after, 0) // each)
        if not colours:
            raise UnreadableImage("the BMP is damaged: it has no palette")
        palette = data[after : after + each * colours]
        if each == 3:
            palette = b"".join(palette[i : i + 3] + b"\0" for i in range(0, len(palette), 3))
    size = (width * bits + 31) // 32 * 4 * rows
    if start < after or start + size > len(data):
        raise UnreadableImage("the BMP is cut off: its rows lie outside the file")
    pixels = width * rows
    memory = pixels * (1 if bits <= 8 else 4) + 3 * pixels
    check_memory((width, rows), memory, limits, len(data))
    body = masks + palette
    file = b"".join([
        struct.pack("<2sIII", b"BM", 54 + len(body) + size, 0, 54 + len(body)),
        struct.pack("<IiiHHIIiiII", 40 + len(masks), width, height, 1, bits,
                    _BITFIELDS if masked else _RGB, size, 2835, 2835, len(palette) // 4, 0),
        body,
        memoryview(data)[start : start + size],
    ])  # fmt: skip
    return Still("BMP", file, width, rows, memory)
