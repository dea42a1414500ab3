"""An upright image that is decoded as finely as it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Picture"]


class Picture:
    """An upright image that is decoded only as finely as it is looked at.

    A JPEG's decoder can leave out the finer half, three quarters or seven eighths of its
    frequencies and so give the picture at 1/2, 1/4 or 1/8 of its size, in less time and memory
    and without aliasing.  Every other image is decoded whole.  Safe to share between threads:
    what two of them decode at once is the same.

    Attributes
    ----------
    height, width : int
        Of the whole, upright picture, in pixels.
    """

    __slots__ = ("_decode", "_decoded", "_reductions", "height", "width")

    def __init__(
        self,
        height: int,
        width: int,
        decode: Callable[[int], NDArray[np.uint8]] | None = None,
        *,
        pixels: NDArray[np.uint8] | None = None,
        reductions: Sequence[int] = (),
    ) -> None:
        self.height, self.width = height, width
        self._decode = decode
        self._decoded = {} if pixels is None else {1: pixels}
        self._reductions = reductions

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Picture:
        """Of pixels that are there already: (H, W, 3) uint8, BGR."""
        return cls(*pixels.shape[:2], pixels=pixels)

    @property
    def nbytes(self) -> int:
        """Memory that the pixels take so far."""
        return sum(pixels.nbytes for pixels in self._decoded.values())

    def pixels(self) -> NDArray[np.uint8]:
        """All pixels: (height, width, 3) uint8, BGR, C-contiguous."""
        return self._at(1)

    def reduced(self, scale: float) -> tuple[NDArray[np.uint8], int]:
        """The picture at no less than `scale` of its size, and by how much it is reduced.

        What has been decoded already is preferred to decoding anew.

        Parameters
        ----------
        scale : float
            Of the answer that will be made of it; 1 and more need every pixel.

        Returns
        -------
        pixels : ndarray, shape (ceil(height / reduction), ceil(width / reduction), 3), uint8, BGR
        reduction : {1, 2, 4, 8}
        """
        wanted = max((r for r in self._reductions if r * scale <= 1), default=1)
        reduction = max((r for r in self._decoded if r <= wanted), default=wanted)
        return self._at(reduction), reduction

    def release_pixels(self) -> None:
        """Give back the memory of a JPEG's pixels, which are soon decoded again."""
        if self._reductions:
            self._decoded = {}

    def _at(self, reduction: int) -> NDArray[np.uint8]:
        decoded = self._decoded
        if reduction not in decoded:
            assert self._decode is not None
            pixels = self._decode(reduction)
            decoded = self._decoded = {**decoded, reduction: pixels}
        return decoded[reduction]
