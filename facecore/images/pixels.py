"""Convert decoder output to upright 8-bit BGR, in bands to avoid copies of whole pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facecore.errors import UnreadableImage
from facecore.images.formats import SWAPS, pillow_orientation
from facecore.images.quiet import quiet, strict_pillow

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["from_pillow", "to_bgr8", "upright"]

_BAND = 64  # rows


def to_bgr8(pixels: NDArray[Any], transparent: int | None = None) -> NDArray[np.uint8]:
    """Convert 8- or 16-bit grey, BGR or BGRA to (H, W, 3) uint8, transparent as white."""
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        return pixels
    return _by_bands(
        pixels.shape[:2], lambda top, bottom: _band_to_bgr8(pixels[top:bottom], transparent)
    )


def from_pillow(image: PIL.Image.Image) -> NDArray[np.uint8]:
    """Convert a Pillow image to upright (H, W, 3) uint8 BGR.

    Raises
    ------
    UnreadableImage
        32-bit grey of unknown scale.
    """
    from PIL import Image

    with quiet, strict_pillow:
        image.load()
        orientation = pillow_orientation(image)  # after load(): Pillow rotates a TIFF while loading
        width, height = image.size

        def band(top: int, bottom: int) -> NDArray[np.uint8]:
            # Not `crop`, which checks the global MAX_IMAGE_PIXELS.
            size, box = (width, bottom - top), (0, top, width, bottom)
            part = image.resize(size, Image.Resampling.NEAREST, box=box)
            return _band_to_bgr8(_pillow_samples(part, image.has_transparency_data))

        pixels = _by_bands((height, width), band)
    return upright(pixels, orientation)


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Rotate and flip pixels by an EXIF orientation; may modify `pixels`."""
    import cv2

    turned: NDArray[Any] = cv2.transpose(pixels) if orientation in SWAPS else pixels
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    if flip is not None:
        cv2.flip(turned, flip, dst=turned)
    return np.ascontiguousarray(turned)


def _by_bands(
    size: tuple[int, ...], band: Callable[[int, int], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    height, width = size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _BAND):
        bottom = min(top + _BAND, height)
        pixels[top:bottom] = band(top, bottom)
    return pixels


def _band_to_bgr8(band: NDArray[Any], transparent: int | None = None) -> NDArray[np.uint8]:
    import cv2

    hidden = None if transparent is None else band == transparent
    if band.dtype == np.uint16:
        band = cv2.convertScaleAbs(band, alpha=1 / 257)  # 65535 = 257 · 255
    if band.ndim == 2:
        if hidden is not None:
            band = np.where(hidden, np.uint8(255), band)
        band = cv2.cvtColor(band, cv2.COLOR_GRAY2BGR)
    elif band.shape[2] == 4:
        # 255 − (255 − v)·α/255, rounded; stays below 2^16
        product = (255 - band[:, :, :3]) * band[:, :, 3:].astype(np.uint16)
        band = (255 - (product + 127) // 255).astype(np.uint8)
    return band


def _pillow_samples(part: PIL.Image.Image, transparency: bool) -> NDArray[Any]:
    import cv2

    if part.mode in ("I", "F"):
        samples = np.asarray(part)
        high = 65535 if part.mode == "I" else 1
        if not (samples.min() >= 0 and samples.max() <= high):  # NaN fails this too
            raise UnreadableImage(
                f"32-bit grey values outside 0..{high}: their scale is not known",
                "convert the image to 8 bits",
            )
        return np.rint(samples * (65535 / high)).astype(np.uint16)
    if part.mode.startswith("I;16"):
        return np.asarray(part).astype(np.uint16)  # I;16B is big-endian
    if transparency:
        return cv2.cvtColor(np.asarray(part.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
    return cv2.cvtColor(np.asarray(part.convert("RGB")), cv2.COLOR_RGB2BGR)
