"""An upright image, decoded lazily at the resolution needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from facecore.errors import FacecoreError
    from facecore.images.formats import Still

__all__ = ["Picture"]


class Picture:
    """An upright image, decoded lazily at the resolution needed.

    A JPEG decoder can skip high frequencies and return the picture at 1/2, 1/4 or 1/8 of its
    size, in less time and memory and without aliasing.  Other images are decoded at full size.
    Thread-safe: concurrent threads may decode the same pixels twice, with equal results.

    Attributes
    ----------
    height, width : int
        Full size of the upright picture, in pixels.
    """

    __slots__ = ("_decode", "_decoded", "_failure", "_reductions", "_still", "height", "width")

    def __init__(
        self,
        height: int,
        width: int,
        decode: Callable[[int], NDArray[np.uint8]] | None = None,
        *,
        pixels: NDArray[np.uint8] | None = None,
        reductions: Sequence[int] = (),
        still: Still | None = None,
    ) -> None:
        self.height, self.width = height, width
        self._decode = decode
        self._decoded = {} if pixels is None else {1: pixels}
        self._reductions = reductions
        self._still = still
        self._failure: tuple[type[FacecoreError], str, str] | None = None

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Picture:
        """Wrap decoded pixels: (H, W, 3) uint8, BGR."""
        return cls(*pixels.shape[:2], pixels=pixels)

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels decoded so far."""
        return sum(pixels.nbytes for pixels in self._decoded.values())

    def pixels(self) -> NDArray[np.uint8]:
        """Return the pixels at full size: (height, width, 3) uint8, BGR, C-contiguous."""
        return self._at(1)

    def reduced(self, scale: float) -> tuple[NDArray[np.uint8], int]:
        """Return the picture at `scale` of its size or larger, and the reduction factor.

        Reuses decoded pixels if possible.

        Parameters
        ----------
        scale : float
            Minimum size relative to the full size; 1 or more needs the full size.

        Returns
        -------
        pixels : ndarray, shape (ceil(height / reduction), ceil(width / reduction), 3), uint8, BGR
        reduction : {1, 2, 4, 8}
        """
        reduction = self._reduction(scale)
        return self._at(reduction), reduction

    def missing(self, scale: float) -> tuple[Still, int] | None:
        """Return what `reduced` must decode, and the reduction; None if nothing is missing."""
        reduction = self._reduction(scale)
        if self._still is None or reduction in self._decoded:
            return None
        return self._still, reduction

    def keep(self, reduction: int, pixels: NDArray[np.uint8]) -> None:
        """Add decoded pixels."""
        self._decoded = {**self._decoded, reduction: pixels}

    def fail(self, error: FacecoreError) -> None:
        """Keep an error, to raise it again instead of decoding."""
        # Without the traceback, whose frames hold pixels.
        self._failure = type(error), error.message, error.hint

    def release_pixels(self, slow: bool = False) -> None:
        """Free the pixels of a JPEG, which is fast to decode again; with `slow`, of any file."""
        if self._reductions or (slow and self._decode is not None):
            self._decoded = {}

    def _reduction(self, scale: float) -> int:
        wanted = max((r for r in self._reductions if r * scale <= 1), default=1)
        return max((r for r in self._decoded if r <= wanted), default=wanted)

    def _at(self, reduction: int) -> NDArray[np.uint8]:
        decoded = self._decoded
        if reduction not in decoded:
            assert self._decode is not None
            if self._failure is not None:
                kind, message, hint = self._failure
                raise kind(message, hint)
            pixels = self._decode(reduction)
            self.keep(reduction, pixels)
            return pixels  # another thread may have released them
        return decoded[reduction]
