"""Limits on the bytes, pixels and memory of an image, checked before decoding."""

from __future__ import annotations

from dataclasses import dataclass, fields

from facecore.errors import ImageTooLarge, InvalidParameter, UnreadableImage

__all__ = [
    "DEFAULT_LIMITS",
    "Limits",
    "check_bytes",
    "check_memory",
    "check_parts",
    "check_pixels",
]

# JPEG's maximum. Decoders allocate several rows at once, so rows must stay small.
_MAX_SIDE = 65_535
# Chunks, segments, strips or tiles per file. Encoders write a few thousand at most.
_MAX_PARTS = 65_536
# Memory allowed for any file, and additional memory per byte of the file: deflate expands at most
# 1032 times, and converting a pixel holds at most four copies.
_FREE_MEMORY = 64 * 2**20
_MEMORY_PER_BYTE = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on the size of an input.

    Parameters
    ----------
    max_bytes : int
        Maximum encoded size. 20 MiB fits phone photos at full quality.
    max_pixels : int
        Maximum width × height. 80 million accepts 64-megapixel phones and A3 scans at 600 dpi,
        and is below the size at which Pillow warns.
    max_memory : int
        Maximum bytes held at once while decoding, including copies: width × height × channels
        × bytes × copies, known from the file's header. 640 MiB accepts a JPEG or PNG of 80 million
        pixels in any orientation; a 16-bit RGBA PNG reaches it at 40 million pixels.

    Raises
    ------
    InvalidParameter
        If a limit is not a positive integer.

    Notes
    -----
    Three more limits are fixed: 65,535 pixels per side, 65,536 chunks, segments, strips or tiles
    per file, and 64 MiB of memory plus 4096 bytes per byte of the file.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 80_000_000
    max_memory: int = 640 * 2**20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidParameter(f"{field.name} must be a positive integer, not {value!r}")


DEFAULT_LIMITS = Limits()


def check_bytes(size: int, limits: Limits) -> None:
    """Raise ImageTooLarge if an encoded input exceeds ``limits.max_bytes``."""
    if size > limits.max_bytes:
        raise ImageTooLarge(f"{size:,} bytes exceed the limit of {limits.max_bytes:,}")


def check_pixels(size: tuple[int, int], limits: Limits) -> None:
    """Raise ImageTooLarge above ``limits.max_pixels``, UnreadableImage for an empty picture."""
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImage(f"the image has no pixels ({width}×{height})")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"{width * height:,} pixels ({width}×{height}) exceed the limit of "
            f"{limits.max_pixels:,}"
        )


def check_parts(count: int) -> None:
    """Raise ImageTooLarge if a container has more parts than any encoder writes."""
    if count > _MAX_PARTS:
        raise ImageTooLarge(f"more than {_MAX_PARTS:,} parts in one file", "save it again")


def check_memory(
    size: tuple[int, int], memory: int, limits: Limits, file: int | None = None
) -> None:
    """Raise ImageTooLarge if decoding needs more memory than `limits` or the file size allow.

    Parameters
    ----------
    size : (int, int)
        Width and height.
    memory : int
        Bytes held at once while decoding.
    limits : Limits
    file : int, optional
        Bytes of the encoded file, if known.
    """
    if max(size) > _MAX_SIDE:
        raise ImageTooLarge(f"a side of {max(size):,} pixels exceeds the limit of {_MAX_SIDE:,}")
    if memory > limits.max_memory:
        raise ImageTooLarge(
            f"decoding {size[0]}×{size[1]} pixels of this kind takes {memory >> 20:,} MiB, "
            f"the limit is {limits.max_memory >> 20:,} MiB"
        )
    if file is not None and memory > _FREE_MEMORY + _MEMORY_PER_BYTE * file:
        raise ImageTooLarge(
            f"a file of {file:,} bytes would take {memory >> 20:,} MiB of memory",
            "no photo compresses this well; save the picture again as JPEG",
        )
