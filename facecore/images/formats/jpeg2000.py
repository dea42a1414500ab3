"""Rebuild a JPEG 2000, used by chips of identity documents: code stream, colour space."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from facecore.errors import ImageTooLarge, UnreadableImage
from facecore.images.formats.still import Still
from facecore.images.limits import Limits, check_memory, check_parts, check_pixels

__all__ = ["read_jpeg2000"]

_START, _SIZE, _CODING, _COMPONENT_CODING = 0xFF4F, 0xFF51, 0xFF52, 0xFF53
_TILE_PART, _DATA, _END = 0xFF90, 0xFF93, b"\xff\xd9"
# Markers of the main header that decoding needs: sizes, coding, quantisation, regions of
# interest and progression. Comments and lists of lengths are not needed.
_KEPT = frozenset([0xFF51, 0xFF52, 0xFF53, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F])
_LEFT_OUT = frozenset([0xFF55, 0xFF57, 0xFF58, 0xFF63, 0xFF64])  # TLM, PLM, PLT, CRG, COM
# Markers of the header of a tile-part (ITU-T T.800, table A.3): no size, but PLT, PPT and COM.
_IN_TILE = _KEPT - {_SIZE} | {0xFF58, 0xFF61, 0xFF64}
_UNSPECIFIED, _SRGB, _GREY, _SYCC = 0, 16, 17, 18  # OpenJPEG writes 0 if it is not told
# OpenJPEG allocates memory for each of these before reading any of its data.
_MAX_TILES = 1024
_MAX_BLOCKS = 2**17  # precincts and code blocks
_MAX_LAYERS = 256
_CUT = "the JPEG 2000 is cut off"


def read_jpeg2000(data: bytes, limits: Limits) -> Still:
    """Check a JP2 file or a bare code stream, and rebuild it with the boxes of a still picture."""
    colour, definition = _UNSPECIFIED, b""
    stream = data
    if not data.startswith(b"\xff\x4f\xff\x51"):
        boxes = dict(reversed(list(_boxes(data, 0, len(data)))))
        if b"jp2c" not in boxes or b"jp2h" not in boxes:
            raise UnreadableImage("the JPEG 2000 is damaged: it holds no code stream")
        header = dict(reversed(list(_boxes(boxes[b"jp2h"], 0, len(boxes[b"jp2h"])))))
        if b"pclr" in header:
            raise UnreadableImage("the JPEG 2000 has a palette", "save it as JPEG or PNG")
        specified = header.get(b"colr", b"")
        if specified[:1] == b"\1":
            colour = int.from_bytes(specified[3:7])
        # A colour profile (methods 2 and 3) names its colour space in its bytes 16 to 19.
        profiled = specified[:1] in (b"\2", b"\3")
        if colour not in (_UNSPECIFIED, _SRGB, _GREY, _SYCC) or (
            profiled and specified[19:23] not in (b"RGB ", b"GRAY")
        ):
            raise UnreadableImage(
                "the JPEG 2000 has an unsupported colour space", "save it as JPEG or PNG"
            )
        definition = header.get(b"cdef", b"")
        stream = boxes[b"jp2c"]
    rebuilt, size, channels, bits = _code_stream(stream, limits)
    width, height = size
    if definition and not _is_plain(definition, channels):
        raise UnreadableImage(
            "the JPEG 2000 has channels of an unsupported order or kind", "save it as JPEG or PNG"
        )
    if colour == _UNSPECIFIED:
        colour = _SRGB if channels > 2 else _GREY
    # OpenJPEG's 32-bit samples, Pillow's pixels and the result.
    memory = width * height * (4 * channels + 4 + 3)
    check_memory(size, memory, limits, len(data))
    image = struct.pack(">IIHBBBB", height, width, channels, bits - 1, 7, 0, 0)
    boxes_of_header = _box(b"ihdr", image) + _box(b"colr", struct.pack(">BBBI", 1, 0, 0, colour))
    if channels in (2, 4):
        alpha = channels - 1
        defined = [(i, 0, i + 1) for i in range(alpha)] + [(alpha, 1, 0)]
        packed = b"".join(struct.pack(">HHH", *row) for row in defined)
        boxes_of_header += _box(b"cdef", struct.pack(">H", channels) + packed)
    file = (
        _box(b"jP  ", b"\r\n\x87\n")
        + _box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        + _box(b"jp2h", boxes_of_header)
        + _box(b"jp2c", rebuilt)
    )
    return Still("JPEG 2000", file, width, height, memory)


def _is_plain(definition: bytes, channels: int) -> bool:
    """Return whether a `cdef` box defines the colours in their order, then at most an alpha."""
    colours = 3 if channels > 2 else 1
    if len(definition) != 2 + 6 * channels:
        return False
    rows = sorted(struct.iter_unpack(">HHH", definition[2:]))
    plain = rows[:colours] == [(i, 0, i + 1) for i in range(colours)]
    return plain and all(row[:2] in ((colours, 1), (colours, 2)) for row in rows[colours:])


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    count = 0
    while start + 8 <= end:
        check_parts(count := count + 1)
        length, kind = struct.unpack_from(">I4s", data, start)
        first = start + 8
        if length == 1:
            if start + 16 > end:
                raise UnreadableImage(_CUT)
            (length,) = struct.unpack_from(">Q", data, first)
            first += 8
        stop = end if length == 0 else start + length
        if not first <= stop <= end:
            raise UnreadableImage(_CUT)
        yield kind, data[first:stop]
        start = stop


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content


def _code_stream(data: bytes, limits: Limits) -> tuple[bytes, tuple[int, int], int, int]:
    """Return the stream with a reduced main header, the size, the components and their bits."""
    parts = [b"\xff\x4f"]
    size, tile, channels, bits, tiles = (0, 0), (0, 0), 0, 0, 0
    if data[:4] != b"\xff\x4f\xff\x51":
        raise UnreadableImage("the JPEG 2000 is damaged: its code stream has no start")
    segments, start = _segments(data, 2, _TILE_PART)
    for marker, segment in segments:
        if marker == _SIZE:
            if channels:
                raise UnreadableImage("the JPEG 2000 is damaged: it has two sizes")
            size, tile, channels, bits, tiles = _sizes(segment, limits)
        elif marker not in _KEPT | _LEFT_OUT:
            raise UnreadableImage(f"the JPEG 2000 has an unsupported marker {marker:04X}")
        _check_coding(marker, segment, tile, tiles, channels)
        if marker in _KEPT:
            parts += [struct.pack(">HH", marker, len(segment) + 2), segment]
    position, seen, count = start, 0, len(segments)
    while data[position : position + 2] != _END:
        if position + 12 > len(data):
            raise UnreadableImage(_CUT)
        marker, length, _, part, _, _ = struct.unpack_from(">HHHIBB", data, position)
        if marker != _TILE_PART or length != 10:
            raise UnreadableImage("the JPEG 2000 is damaged between its tiles")
        segments, pixels = _segments(data, position + 12, _DATA)
        for marker, segment in segments:
            if marker not in _IN_TILE:
                raise UnreadableImage(f"the JPEG 2000 has an unsupported marker {marker:04X}")
            _check_coding(marker, segment, tile, tiles, channels)
        seen += 1
        check_parts(count := count + len(segments))
        if part == 0:  # to the end
            if not data.endswith(_END):
                raise UnreadableImage(_CUT)
            position = len(data) - 2
        elif pixels + 2 > position + part or seen > 16 * _MAX_TILES:
            raise UnreadableImage("the JPEG 2000 is damaged between its tiles")
        else:
            position += part
    if not seen:
        raise UnreadableImage("the JPEG 2000 is damaged: it has no tile")
    return b"".join([*parts, data[start:position], _END]), size, channels, bits


def _segments(data: bytes, position: int, last: int) -> tuple[list[tuple[int, bytes]], int]:
    """Return the markers and segments from `position` to the marker `last`, and its position."""
    found: list[tuple[int, bytes]] = []
    while True:
        if position + 4 > len(data):
            raise UnreadableImage(_CUT)
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == last:
            return found, position
        segment = data[position + 4 : position + 2 + length]
        if length < 2 or len(segment) != length - 2:
            raise UnreadableImage(_CUT)
        found.append((marker, segment))
        check_parts(len(found))
        position += 2 + length


def _sizes(
    segment: bytes, limits: Limits
) -> tuple[tuple[int, int], tuple[int, int], int, int, int]:
    if len(segment) < 36:
        raise UnreadableImage(_CUT)
    _, right, bottom, left, top, wide, high, tile_left, tile_top, channels = struct.unpack_from(
        ">HIIIIIIIIH", segment
    )
    size = right - left, bottom - top
    check_pixels(size, limits)
    components = segment[36:]
    plain = len(components) == 3 * channels and len({*components[::3]}) == 1
    if not plain or {*components[1::3], *components[2::3]} != {1} or not 1 <= channels <= 4:
        raise UnreadableImage(
            f"the JPEG 2000 has {channels} channels of an unsupported kind",
            "save it as JPEG or PNG",
        )
    if components[0] & 0x80 or components[0] > 15:
        raise UnreadableImage("the JPEG 2000 has signed samples or more than 16 bits")
    if not (wide and high and tile_left <= left < tile_left + wide and
            tile_top <= top < tile_top + high):  # fmt: skip
        raise UnreadableImage("the JPEG 2000 is damaged: its tiles do not cover it")
    tiles = -(-(right - tile_left) // wide) * -(-(bottom - tile_top) // high)
    if tiles > _MAX_TILES:
        raise ImageTooLarge(f"more than {_MAX_TILES:,} tiles in a JPEG 2000", "save it again")
    tile = min(wide, size[0]), min(high, size[1])
    return size, tile, channels, components[0] + 1, tiles


def _check_coding(
    marker: int, segment: bytes, tile: tuple[int, int], tiles: int, channels: int
) -> None:
    """Limit the layers, precincts and code blocks, each of which takes memory even if empty."""
    if marker == _CODING:
        if int.from_bytes(segment[2:4]) > _MAX_LAYERS:
            raise ImageTooLarge(f"more than {_MAX_LAYERS} layers in a JPEG 2000")
        style, coding = segment[:1], segment[5:]
    elif marker == _COMPONENT_CODING:
        style, coding = segment[1:2], segment[2:]
    else:
        return
    if not channels or len(coding) < 5:
        raise UnreadableImage("the JPEG 2000 is damaged: its coding is cut off")
    precincts = style[0] & 1
    levels, block_width, block_height = coding[0], coding[1] + 2, coding[2] + 2
    if levels > 32 or block_width + block_height > 12 or (precincts and len(coding) < 6 + levels):
        raise UnreadableImage("the JPEG 2000 is damaged: its coding is invalid")
    count = 0
    for level in range(levels + 1):
        precinct = coding[5 + level] if precincts else 0xFF
        shift = levels - level
        width, height = ((side >> shift) + 1 for side in tile)
        count += ((width >> (precinct & 15)) + 1) * ((height >> (precinct >> 4)) + 1)
        count += ((width >> block_width) + 1) * ((height >> block_height) + 1)
    if count * tiles * channels > _MAX_BLOCKS:
        raise ImageTooLarge("the JPEG 2000 has too many small blocks", "save it again")
