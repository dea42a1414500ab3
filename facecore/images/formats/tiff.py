"""Rebuild the first picture of a TIFF: size, samples, strips; drop all other tags."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from facecore.errors import UnreadableImage
from facecore.images.formats.still import SWAPS, Still
from facecore.images.limits import Limits, check_memory, check_parts, check_pixels

__all__ = ["read_tiff"]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _STRIPS, _ORIENTATION, _CHANNELS, _STRIP_ROWS = 266, 273, 274, 277, 278
_STRIP_BYTES, _PLANAR, _T4, _T6, _PREDICTOR, _COLOUR_MAP = 279, 284, 292, 293, 317, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _JPEG_TABLES, _SUBSAMPLING, _POSITIONING = 338, 339, 347, 530, 531

# Tags that decoding needs -> maximum number of values.
_KEPT = {
    _WIDTH: 1, _HEIGHT: 1, _BITS: 8, _COMPRESSION: 1, _PHOTOMETRIC: 1, _FILL_ORDER: 1,
    _CHANNELS: 1, _PLANAR: 1, _T4: 1, _T6: 1, _PREDICTOR: 1, _COLOUR_MAP: 768,
    _EXTRA_SAMPLES: 8, _SAMPLE_FORMAT: 8, _JPEG_TABLES: 4096, _SUBSAMPLING: 2, _POSITIONING: 1,
}  # fmt: skip
_READ = {**_KEPT, _ORIENTATION: 1, _STRIP_ROWS: 1, _TILE_WIDTH: 1, _TILE_HEIGHT: 1}
_PARTS = frozenset([_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES])
_TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}  # integers and raw bytes
_NONE, _JPEG = 1, 7
# None, CCITT (3 variants), LZW, JPEG, deflate (2 numbers), PackBits.
_COMPRESSIONS = frozenset([_NONE, 2, 3, 4, 5, _JPEG, 8, 32946, 32773])
_WHITE_IS_ZERO, _SIGNED = 0, 2
_PHOTOMETRICS = frozenset([_WHITE_IS_ZERO, 1, 2, 3, 5, 6])  # grey, RGB, palette, CMYK, YCbCr
_DEPTHS = frozenset([1, 2, 4, 8, 16, 32])  # Pillow reads 12 bits too, but does not scale them


def read_tiff(data: bytes, limits: Limits) -> Still:
    """Check the first picture of a TIFF and rebuild the file from its tags and strips."""
    order = "<" if data.startswith(b"II") else ">"
    tags = _directory(data, order)

    def one(tag: int, default: int) -> int:
        return tags[tag][0] if tags.get(tag) else default

    width, height = one(_WIDTH, 0), one(_HEIGHT, 0)
    check_pixels((width, height), limits)
    channels, compression = one(_CHANNELS, 1), one(_COMPRESSION, _NONE)
    bits = tags.get(_BITS, [1])
    if compression not in _COMPRESSIONS:
        raise UnreadableImage(
            f"the TIFF has the unsupported compression {compression}", "save it as JPEG or PNG"
        )
    photometric, depth = one(_PHOTOMETRIC, 1), max(max(bits), 1)
    if photometric not in _PHOTOMETRICS or not 1 <= channels <= 5 or depth not in _DEPTHS:
        raise UnreadableImage(
            f"the TIFF has unsupported pixels: {channels} channels of {depth} bits",
            "save it as JPEG or PNG",
        )
    signed = _SIGNED in tags.get(_SAMPLE_FORMAT, ())
    # Pillow would not invert or shift these.
    if (photometric == _WHITE_IS_ZERO and depth > 8) or (signed and depth < 32):
        kind = "signed" if signed else "white-is-zero"
        raise UnreadableImage(
            f"the TIFF has unsupported pixels: {kind} samples of {depth} bits",
            "save it as JPEG or PNG",
        )
    planes = channels if one(_PLANAR, 1) == 2 else 1
    # Pillow would read 16-bit planes as 8-bit ones, and confuse planes of grey and alpha.
    if planes == 2 or (planes > 1 and depth == 16 and compression == _NONE):
        raise UnreadableImage(
            f"the TIFF has unsupported pixels: {planes} separate planes of {depth} bits",
            "save it as JPEG or PNG",
        )
    tiled = _TILES in tags
    if tiled:
        tile = one(_TILE_WIDTH, 0), one(_TILE_HEIGHT, 0)
    else:
        tile = width, min(max(one(_STRIP_ROWS, height), 1), height)
    if min(tile) < 1 or tile[0] > width + 4096 or tile[1] > height + 4096:
        raise UnreadableImage("the TIFF is damaged: its tile size does not fit the picture")
    count = planes * -(-width // tile[0]) * -(-height // tile[1])
    strips = _strips(data, tags, tiled, count)
    row = (tile[0] * (channels // planes) * depth + 7) // 8
    if compression == _NONE:
        down = -(-height // tile[1])
        last = tile[1] if tiled else height - (down - 1) * tile[1]
        for i, strip in enumerate(strips):
            if len(strip) < row * (last if i % down == down - 1 else tile[1]):
                raise UnreadableImage("the TIFF is damaged: its strips do not cover the image")
    kept = {tag: values for tag, values in tags.items() if tag in _KEPT}
    if tiled:
        kept |= {_TILE_WIDTH: [tile[0]], _TILE_HEIGHT: [tile[1]]}
    else:
        kept[_STRIP_ROWS] = [tile[1]]
    orientation = one(_ORIENTATION, 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    # Pillow's picture, plus a strip or the result.
    pixels = width * height
    stored = {1: 1, 3: 4, 4: 4, 5: 4}.get(channels, 4)
    stored = 4 if depth > 16 else 2 if channels == 1 and depth > 8 else stored
    strip_bytes = row * tile[1] * (4 if compression == _JPEG else 1)
    memory = pixels * stored + max(strip_bytes, 3 * pixels)
    memory = max(memory, 6 * pixels if orientation in SWAPS else 0)
    check_memory((width, height), memory, limits, len(data))
    rebuilt = _write(order, kept, strips, tiled)
    return Still("TIFF", rebuilt, width, height, memory, orientation)


def _directory(data: bytes, order: str) -> dict[int, Sequence[int]]:
    """Return the supported tags of the first directory and their values."""
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    try:
        if big:
            (start,) = struct.unpack_from(order + "Q", data, 8)
            (count,) = struct.unpack_from(order + "Q", data, start)
            first, form = start + 8, struct.Struct(order + "HHQ8s")
        else:
            (start,) = struct.unpack_from(order + "I", data, 4)
            (count,) = struct.unpack_from(order + "H", data, start)
            first, form = start + 2, struct.Struct(order + "HHI4s")
        if first + count * form.size > len(data):
            raise UnreadableImage("the TIFF is cut off inside its directory")
        entries = memoryview(data)[first : first + count * form.size]
        tags: dict[int, Sequence[int]] = {}
        for tag, kind, values, inline in form.iter_unpack(entries):
            if tag in tags or kind not in _TYPES or not values:
                continue
            if tag in _PARTS:
                check_parts(values)
            elif tag not in _READ:
                continue
            elif values > _READ[tag]:
                raise UnreadableImage(f"the TIFF is damaged: tag {tag} has {values:,} values")
            numbers = struct.Struct(f"{order}{values}{_TYPES[kind]}")
            if numbers.size <= len(inline):
                tags[tag] = numbers.unpack_from(inline)
            else:
                (place,) = struct.unpack(order + ("Q" if big else "I"), inline)
                tags[tag] = numbers.unpack_from(data, place)
    except (struct.error, OverflowError) as error:
        raise UnreadableImage("the TIFF is cut off inside its directory") from error
    return tags


def _strips(
    data: bytes, tags: Mapping[int, Sequence[int]], tiled: bool, count: int
) -> list[memoryview]:
    offsets = tags.get(_TILES if tiled else _STRIPS, ())
    sizes = tags.get(_TILE_BYTES if tiled else _STRIP_BYTES, ())
    if len(offsets) < count or len(sizes) < count:
        raise UnreadableImage("the TIFF is damaged: its strips do not cover the image")
    if sum(sizes[:count]) > len(data):
        raise UnreadableImage("the TIFF is damaged: its strips overlap or are cut off")
    view = memoryview(data)
    found = []
    for offset, size in zip(offsets[:count], sizes[:count], strict=True):
        if offset + size > len(data) or not size:
            raise UnreadableImage("the TIFF is cut off: a strip lies outside the file")
        found.append(view[offset : offset + size])
    return found


def _write(
    order: str, tags: dict[int, Sequence[int]], strips: Sequence[memoryview], tiled: bool
) -> bytes:
    """Return a classic TIFF with one directory, in the byte order of the samples."""
    places, sizes = (_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)
    tags = {**tags, places: [0] * len(strips), sizes: [len(strip) for strip in strips]}
    wide = {tag: tag in (places, sizes, _WIDTH, _HEIGHT, _STRIP_ROWS) for tag in tags}
    kinds = {tag: (7, "B") if tag == _JPEG_TABLES else (4, "I") if wide[tag] else (3, "H")
             for tag in tags}  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    outside: dict[int, int] = {}  # tag -> offset of values that do not fit into the entry
    end = start
    for tag, values in sorted(tags.items()):
        size = struct.calcsize(f"{len(values)}{kinds[tag][1]}")
        if size > 4:
            outside[tag] = end
            end += size + size % 2
    offsets = []
    for strip in strips:
        offsets.append(end)
        end += len(strip)
    tags[places] = offsets
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = [mark, struct.pack(order + "IH", 8, len(tags))]
    tail = []
    for tag, values in sorted(tags.items()):
        kind, letter = kinds[tag]
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        inline = (
            struct.pack(order + "I", outside[tag]) if tag in outside else packed.ljust(4, b"\0")
        )
        head.append(struct.pack(order + "HHI", tag, kind, len(values)) + inline)
        if tag in outside:
            tail.append(packed + b"\0" * (len(packed) % 2))
    return b"".join([*head, b"\0\0\0\0", *tail, *strips])
