"""Make pictures that broke a decoder, took gigabytes or filled a log.

    python -m tests.images.hostile      # writes the kept ones to tests/data/pictures

No picture shows a person.  The name of a kept file ends in the expected result: ``read``, or the
code of the error.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "data" / "pictures"
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, bits: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))


def rows(filtering: int, value: int = 0x80, side: int = 48) -> bytes:
    return zlib.compress((bytes([filtering]) + bytes([value]) * side) * side, 9)


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND")


def frame(number: int, side: int = 48, x: int = 0, y: int = 0) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, side, side, x, y, 1, 10, 0, 0))


def animation(filtering: int, *, first: bytes = b"", value: int = 0x20, still: int = 0x80) -> bytes:
    """Return an APNG with a still picture of grey `still` and another frame of grey `value`."""
    return png(
        header(48, 48),
        chunk(b"acTL", struct.pack(">II", 2 if first else 1, 0)),
        first,
        chunk(b"IDAT", rows(0, still)),
        frame(1 if first else 0),
        chunk(b"fdAT", struct.pack(">I", 2 if first else 1) + rows(filtering, value)),
    )


def tiff(tags: dict[int, tuple[int, list[int]]], strip: bytes, times: int = 1) -> bytes:
    """Return a little-endian TIFF whose strips share bytes; tag -> (type 3 or 4, values)."""
    tags = {**tags, 273: (4, [0] * times), 279: (4, [len(strip)] * times)}
    tags = dict(sorted(tags.items()))
    outside = b""
    start = 8 + 2 + 12 * len(tags) + 4
    place = start + sum(4 * len(values) for _, values in tags.values() if len(values) > 1)
    tags[273] = (4, [place] * times)
    directory = struct.pack("<H", len(tags))
    for tag, (kind, values) in tags.items():
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            packed, more = struct.pack("<I", start + len(outside)), packed
            outside += more.ljust(4 * len(values), b"\0")
        directory += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0\x08\0\0\0" + directory + b"\0\0\0\0" + outside + strip


def flat_tiff(width: int, height: int, times: int = 1) -> bytes:
    """Return a deflated TIFF of one 32-bit grey value; its `times` strips share the same bytes."""
    packed = zlib.compress(bytes(4 * width * height), 9)
    return tiff(
        {256: (4, [width]), 257: (4, [height * times]), 258: (3, [32]), 259: (3, [8]),
         262: (3, [1]), 277: (3, [1]), 278: (4, [height]), 339: (3, [3])},
        packed,
        times,
    )  # fmt: skip


def exif_flood(tags: int = 60_000) -> bytes:
    """Return a PNG whose EXIF data hold an orientation and `tags` - 1 tags of an unknown type."""
    entry = struct.pack("<HHI4s", 0x9000, 99, 1, b"\xff\xff\xff\xff")
    turned = struct.pack("<HHI4s", 0x0112, 3, 1, b"\6\0\0\0")
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + turned + entry * (tags - 1) + bytes(4)
    return png(header(48, 48), chunk(b"eXIf", exif), chunk(b"IDAT", rows(0)))


def webp_lossless(width: int, height: int) -> bytes:
    """Return a WebP of one colour at any size: every code has one symbol and takes no bits."""
    size = (width - 1) | (height - 1) << 14
    bits = "0" * 4  # no alpha, version 0
    bits += "0" + "0" + "0"  # no transform, no colour cache, no groups of codes
    for _ in range(5):
        bits += "1" + "0" + "0" + "0"  # a simple code of one symbol, 1 bit: 0
    whole = 0x2F | size << 8
    number = sum(1 << i for i, bit in enumerate(bits) if bit == "1")
    stream = (whole | number << 36).to_bytes(12, "little")
    body = b"VP8L" + struct.pack("<I", len(stream)) + stream
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def kept() -> dict[str, bytes]:
    """Return past crashes and similar pictures, by name."""
    return {
        "apng-frame-of-filter-5.read.png": animation(5, first=frame(0)),
        "apng-frame-outside.read.png": png(
            header(48, 48), chunk(b"acTL", struct.pack(">II", 2, 0)), frame(0),
            chunk(b"IDAT", rows(0)), frame(1, 4000, 2**31 - 9, 2**31 - 9),
            chunk(b"fdAT", struct.pack(">I", 2) + rows(0)),
        ),
        "apng-other-still.read.png": animation(0),
        "apng-without-pixels.UnreadableImage.png": png(
            header(48, 48), chunk(b"acTL", struct.pack(">II", 1, 0)), frame(0),
            chunk(b"fdAT", struct.pack(">I", 1) + rows(0)),
        ),
        "filter-5.UnreadableImage.png": png(header(48, 48), chunk(b"IDAT", rows(5))),
        "rows-missing.UnreadableImage.png": png(
            header(48, 4800), chunk(b"IDAT", rows(0))
        ),
        "wide.ImageTooLarge.png": png(
            header(70_000, 1), chunk(b"IDAT", zlib.compress(bytes(70_001), 9))
        ),
        "117-bytes.UnreadableImage.png": png(
            header(8_900, 8_900, 16, 6),
            chunk(b"acTL", struct.pack(">II", 1, 0)),
            chunk(b"IDAT", zlib.compress(bytes(9), 9)),
        ),
        "two-palettes.UnreadableImage.png": png(
            header(48, 48, 8, 3), chunk(b"PLTE", bytes(6)), chunk(b"PLTE", bytes(768)),
            chunk(b"IDAT", rows(0, 0)),
        ),
        "pixel-beyond-its-palette.read.png": png(
            header(48, 48, 8, 3), chunk(b"PLTE", bytes(6)), chunk(b"IDAT", rows(0, 255))
        ),
        "profile-bomb.read.png": png(
            header(48, 48), chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**20), 9)),
            chunk(b"IDAT", rows(0)),
        ),
        "38-bytes.ImageTooLarge.webp": webp_lossless(16_383, 4_882),
        "one-colour.read.webp": webp_lossless(64, 64),
        "grey-of-32-bits.UnreadableImage.tif": flat_tiff(8_900, 80, 100),
        "directory-in-a-circle.read.tif": tiff(
            {256: (4, [16]), 257: (4, [16]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]),
             277: (3, [1]), 278: (4, [16]), 330: (4, [8, 8, 8]), 34665: (4, [8])},
            bytes(256),
        ),
    }  # fmt: skip


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in kept().items():
        (FOLDER / name).write_bytes(data)
        print(f"{len(data):8} {name}")
