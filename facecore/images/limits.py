"""Limits on the bytes, pixels and memory of an image, checked before anything is decoded."""

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

# JPEG's own maximum. Decoders allocate several rows at once, so that a row must stay small.
_MAX_SIDE = 65_535
# Chunks or segments of a file. Encoders write a few thousand at most.
_MAX_PARTS = 65_536
# A file may take this much memory whatever its size, and for each byte of it so much more:
# deflate expands at most 1032 times, and a pixel's conversion holds at most four copies.
_FREE_MEMORY = 64 * 2**20
_MEMORY_PER_BYTE = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What an input may cost before it is refused.

    Parameters
    ----------
    max_bytes : int
        Largest encoded input. 20 MiB holds what phones write at full quality.
    max_pixels : int
        Largest width × height. 80 million passes 64-megapixel phones and A3 scans at 600 dpi,
        and lies below the size at which Pillow starts to warn.
    max_memory : int
        Most bytes that decoding may hold at once, all copies included: width × height × channels
        × bytes × copies, known from the file's header. 640 MiB passes a JPEG or PNG of 80 million
        pixels in any orientation; a PNG of 16-bit RGBA reaches it at 40 million pixels.

    Raises
    ------
    InvalidParameter
        If a limit is not a positive integer.

    Notes
    -----
    Three more limits are fixed. No side is longer than 65,535 pixels. A file has no more than
    65,536 chunks or segments. And memory must bear a
    relation to the file: beyond 64 MiB, a file gets 4096 bytes of memory for each of its own.
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
    """Raise ImageTooLarge where an encoded input has more bytes than `limits` allow."""
    if size > limits.max_bytes:
        raise ImageTooLarge(f"{size:,} bytes exceed the limit of {limits.max_bytes:,}")


def check_pixels(size: tuple[int, int], limits: Limits) -> None:
    """Raise ImageTooLarge where a picture of (width, height) has more pixels than allowed."""
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImage(f"the image has no pixels ({width}×{height})")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"{width * height:,} pixels ({width}×{height}) exceed the limit of "
            f"{limits.max_pixels:,}"
        )


def check_parts(count: int) -> None:
    """Raise ImageTooLarge where a container has more parts than any encoder writes."""
    if count > _MAX_PARTS:
        raise ImageTooLarge(f"more than {_MAX_PARTS:,} chunks in one file", "save it again")


def check_memory(
    size: tuple[int, int], memory: int, limits: Limits, file: int | None = None
) -> None:
    """Raise ImageTooLarge where decoding takes more memory than `limits` or the file allow.

    Parameters
    ----------
    size : (int, int)
        Width and height.
    memory : int
        Bytes that decoding holds at once.
    limits : Limits
    file : int, optional
        Bytes of the encoded file, where they are known.
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
            "a photograph never packs so tightly; save the picture again as JPEG",
        )
