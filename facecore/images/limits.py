"""Limits on the bytes and pixels of an image, checked before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass, fields

from facecore.errors import ImageTooLarge, InvalidParameter, UnreadableImage

__all__ = ["DEFAULT_LIMITS", "Limits", "check_bytes", "check_pixels"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an input may cost before it is refused.

    Parameters
    ----------
    max_bytes : int
        Largest encoded input. 20 MiB holds what phones write at full quality.
    max_pixels : int
        Largest width × height. 80 million passes 64-megapixel phones and A3 scans at 600 dpi,
        costs 240 MB decoded, and lies below the size at which Pillow starts to warn.

    Raises
    ------
    InvalidParameter
        If a limit is not a positive integer.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 80_000_000

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
