"""Decode an image, from any input, to upright 8-bit BGR pixels.

OpenCV decodes JPEG, PNG and WebP, as it is the faster decoder.  Pillow reads headers and metadata
and decodes the rest: BMP, TIFF, animated WebP, grey PNG with a transparent value.  A transparent
pixel shows white.  Of an animation or a multi-page file, the first frame is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError, ImageTooLarge, InvalidParameter, UnreadableImage
from facecore.images.formats import (
    check_png,
    check_tiff,
    exif_orientation,
    open_header,
    opencv_reads,
    read_jpeg,
)
from facecore.images.limits import DEFAULT_LIMITS, Limits, check_pixels
from facecore.images.picture import Picture
from facecore.images.read import read_bytes

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["ImageInput", "is_independent", "load", "open_picture"]

# A string, so that importing this module imports neither Pillow nor OpenCV.
ImageInput: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"
    " | PIL.Image.Image | NDArray[np.uint8] | Picture"
)


def load(image: ImageInput, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode an image and turn it upright.

    Parameters
    ----------
    image : path, bytes-like, binary file, PIL.Image.Image or ndarray
        JPEG, PNG, WebP, BMP or TIFF data are turned by their EXIF orientation, and so is a
        ``PIL.Image`` that carries one. A file is read from where it stands to its end. An array
        is (H, W, 3) uint8 in BGR order and taken to be upright.
    limits : Limits, optional
        Bytes and pixels to accept.

    Returns
    -------
    (H, W, 3) uint8 ndarray
        BGR, C-contiguous. A contiguous array that was passed in is returned itself, not a copy.

    Raises
    ------
    UnreadableImage
        If there is no such file, or it is empty, incomplete, damaged or of another format.
    ImageTooLarge
        If the input exceeds a limit.
    InvalidParameter
        If `image` is of another type, or an array of another shape or dtype.

    Notes
    -----
    16-bit samples are divided by 257 and rounded, except in colour TIFFs, where Pillow keeps the
    high byte (at most one level lower). 32-bit grey is accepted where its scale is certain:
    integers in 0..65535, floats in 0..1.

    Damage is found where the format can show it: always in PNG (checksums), in JPEG and WebP
    where the structure is hurt. A wrong byte inside a JPEG's or WebP's coded pixels decodes to
    wrong pixels, as it does everywhere else.
    """
    return open_picture(image, limits).pixels()


def is_independent(image: object) -> bool:
    """Whether another thread may read it: not of a file that is open, or an image of Pillow's."""
    return isinstance(
        image, str | os.PathLike | bytes | bytearray | memoryview | Picture | np.ndarray
    )


def open_picture(image: ImageInput, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Check an image, and decode it when it is looked at.

    Parameters and errors are those of `load`; of the errors, those of damaged pixels are raised
    by the `Picture` when it decodes them.  A `Picture` is returned as it is.
    """
    if isinstance(image, Picture):
        check_pixels((image.width, image.height), limits)
        return image
    if isinstance(image, np.ndarray):
        return Picture.of(_from_array(image, limits))
    # Whoever holds a PIL image has imported it; while another thread still does, the class is
    # not there yet.
    pillow_image = getattr(sys.modules.get("PIL.Image"), "Image", None)
    if pillow_image is not None and isinstance(image, pillow_image):
        check_pixels(image.size, limits)
        with _decoder_errors():
            return Picture.of(_from_pillow(image))
    data = read_bytes(image, limits)
    with _decoder_errors():
        return _from_encoded(data, limits)


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Turn what decoders raise on hostile bytes, which is nearly anything, into one error."""
    try:
        yield
    except FacecoreError:
        raise
    except Exception as error:
        if type(error).__name__ == "DecompressionBombError":
            raise ImageTooLarge(f"Pillow refuses the image: {error}") from error
        reason = str(error).strip() or type(error).__name__
        raise UnreadableImage(f"the image cannot be decoded: {reason}") from error


def _from_array(array: NDArray[Any], limits: Limits) -> NDArray[np.uint8]:
    if array.size == 0:
        raise UnreadableImage(f"the array has no pixels (shape {array.shape})")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        if array.dtype != np.uint8:
            hint = "scale the values to 0..255, then .astype(np.uint8)"
        elif array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
            hint = "convert grey with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)"
        elif array.ndim == 3 and array.shape[2] == 4:
            hint = "drop the alpha channel with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)"
        elif array.ndim == 3 and array.shape[0] == 3:
            hint = "move the channels last with image.transpose(1, 2, 0)"
        else:
            hint = "give one image at a time, channels last"
        raise InvalidParameter(
            f"an array must be (H, W, 3) uint8 in BGR order, not {array.shape} {array.dtype}", hint
        )
    check_pixels((array.shape[1], array.shape[0]), limits)
    return np.ascontiguousarray(array)


_REDUCTIONS = (2, 4, 8)  # what a JPEG's decoder can do


def _from_encoded(data: bytes, limits: Limits) -> Picture:
    if data.startswith(b"\xff\xd8\xff"):
        size, layers, orientation = read_jpeg(data, limits)
    else:
        header = open_header(data)
        check_pixels(header.size, limits)
        if header.format == "PNG":
            check_png(data, header)
        elif header.format == "TIFF":
            check_tiff(header)
        if not opencv_reads(header):
            return Picture.of(_from_pillow(header))
        size, layers, orientation = header.size, 0, exif_orientation(header)
    swap, flip = _TURNS.get(orientation, _UPRIGHT)

    def decode(reduction: int) -> NDArray[np.uint8]:
        with _decoder_errors():
            pixels = _to_bgr8(_decode_opencv(data, size, reduction))
            return _upright(pixels, orientation)

    width, height = size
    sides = (width, height) if swap else (height, width)
    if layers not in (1, 3):  # no JPEG, or one in CMYK
        return Picture(*sides, decode)
    # A block that is cut off must be the last, and a flip would make it the first.
    flipped = []
    if flip in (1, -1):
        flipped.append(height if swap else width)
    if flip in (0, -1):
        flipped.append(width if swap else height)
    whole = [r for r in _REDUCTIONS if not any(side % r for side in flipped)]
    return Picture(*sides, decode, reductions=whole)


def _decode_opencv(data: bytes, size: tuple[int, int], reduction: int) -> NDArray[Any]:
    import cv2

    # UNCHANGED keeps 16 bits and alpha; both leave the orientation to us.
    kind = cv2.IMREAD_UNCHANGED
    if reduction > 1:
        kind = getattr(cv2, f"IMREAD_REDUCED_COLOR_{reduction}") | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
    # Two parsers read the size; they must agree.
    if pixels is None or pixels.shape[1::-1] != tuple(-(-side // reduction) for side in size):
        raise UnreadableImage("the image is damaged: its pixels cannot be decoded")
    return pixels


def _from_pillow(image: PIL.Image.Image) -> NDArray[np.uint8]:
    import cv2

    image.load()
    orientation = exif_orientation(image)  # only now: Pillow itself turns a TIFF while it loads
    pixels: NDArray[Any]
    if image.mode in ("I", "F"):
        pixels = np.asarray(image)
        high = 65535 if image.mode == "I" else 1
        if not (pixels.min() >= 0 and pixels.max() <= high):  # NaN fails this too
            raise UnreadableImage(
                f"32-bit grey values outside 0..{high}: their scale is not known",
                "convert the image to 8 bits",
            )
        pixels = np.rint(pixels * (65535 / high)).astype(np.uint16)
    elif image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)  # I;16B is big-endian
    elif image.has_transparency_data:
        pixels = cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
    else:
        pixels = cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    return _upright(_to_bgr8(pixels), orientation)


def _to_bgr8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey, BGR or BGRA of 8 or 16 bits -> (H, W, 3) uint8, transparent pixels on white."""
    import cv2

    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)  # 65535 = 257 · 255
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    elif pixels.shape[2] == 4:
        opaque = np.empty((*pixels.shape[:2], 3), np.uint8)
        for top in range(0, len(pixels), 64):  # in bands: the products need 16 bits
            band = pixels[top : top + 64]
            # 255 − (255 − v)·α/255, rounded; stays below 2^16
            product = (255 - band[:, :, :3]) * band[:, :, 3:].astype(np.uint16)
            opaque[top : top + 64] = 255 - (product + 127) // 255
        pixels = opaque
    return pixels


# EXIF orientation -> (swap rows and columns, then flip: 0 rows, 1 columns, −1 both)
_TURNS: dict[int, tuple[bool, int | None]] = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}
_UPRIGHT: tuple[bool, int | None] = (False, None)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    import cv2

    swap, flip = _TURNS.get(orientation, _UPRIGHT)
    turned: NDArray[Any] = cv2.transpose(pixels) if swap else pixels
    return np.ascontiguousarray(turned if flip is None else cv2.flip(turned, flip))
