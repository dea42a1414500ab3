"""An upright image, decoded lazily at the resolution needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError

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

    __slots__ = ("_begin", "_begun", "_decode", "_decoded", "_reductions", "height", "width")

    def __init__(
        self,
        height: int,
        width: int,
        decode: Callable[[int], NDArray[np.uint8]] | None = None,
        *,
        pixels: NDArray[np.uint8] | None = None,
        reductions: Sequence[int] = (),
        begin: Callable[[int], Callable[[], NDArray[np.uint8]]] | None = None,
    ) -> None:
        self.height, self.width = height, width
        self._decode = decode
        self._decoded = {} if pixels is None else {1: pixels}
        self._reductions = reductions
        self._begin = begin
        self._begun: dict[int, Callable[[], NDArray[np.uint8]]] = {}

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

    def begin(self, scale: float) -> None:
        """Start to decode for `reduced`, if another process decodes; then `settle` is due."""
        reduction = self._reduction(scale)
        if self._begin is not None and reduction not in self._decoded and not self._begun:
            self._begun[reduction] = self._begin(reduction)

    def settle(self) -> None:
        """Wait for pixels that were begun and are no longer needed."""
        while self._begun:
            with contextlib.suppress(FacecoreError, KeyError):  # another thread may be faster
                self._begun.popitem()[1]()

    def release_pixels(self) -> None:
        """Free the pixels of a JPEG, which is fast to decode again."""
        if self._reductions:
            self._decoded = {}

    def _reduction(self, scale: float) -> int:
        wanted = max((r for r in self._reductions if r * scale <= 1), default=1)
        return max((r for r in self._decoded if r <= wanted), default=wanted)

    def _at(self, reduction: int) -> NDArray[np.uint8]:
        decoded = self._decoded
        if reduction not in decoded:
            assert self._decode is not None
            begun = self._begun.pop(reduction, None)
            pixels = self._decode(reduction) if begun is None else begun()
            decoded = self._decoded = {**decoded, reduction: pixels}
        return decoded[reduction]
