"""Decode an image, from any input, to upright 8-bit BGR pixels.

OpenCV decodes JPEG, PNG and WebP, as it is the faster decoder.  Pillow decodes the rest: TIFF,
BMP, JPEG 2000, HEIC and AVIF.  Both get a file that was rebuilt from the parts of a still picture
(`facecore.images.formats`).  A transparent pixel shows white.  Of an animation or a file of
several pages, the still or first picture is used.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError, ImageTooLarge, InvalidParameter, UnreadableImage
from facecore.images.formats import Still, open_heif, read_still
from facecore.images.limits import DEFAULT_LIMITS, Limits, check_memory, check_pixels
from facecore.images.picture import Picture
from facecore.images.pixels import from_pillow, to_bgr8, upright
from facecore.images.quiet import quiet, strict_pillow
from facecore.images.read import read_bytes

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["Decoder", "ImageInput", "decode_still", "is_independent", "load", "open_picture"]

# A string, so that importing this module imports neither Pillow nor OpenCV.
ImageInput: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"
    " | PIL.Image.Image | NDArray[np.uint8] | Picture"
)


class Decoder(Protocol):
    """Where pixels are decoded: in this process, or in another one."""

    def __call__(self, still: Still, reduction: int) -> NDArray[np.uint8]:
        """Upright pixels of a picture at 1/`reduction` of its size; see `decode_still`."""
        ...


def decode_still(still: Still, reduction: int) -> NDArray[np.uint8]:
    """Decode a picture whose container was checked, in this process.

    Parameters
    ----------
    still : Still
    reduction : {1, 2, 4, 8}
        1, or one of ``still.reductions``.

    Returns
    -------
    (ceil(H / reduction), ceil(W / reduction), 3) uint8 ndarray
        Upright, BGR.

    Raises
    ------
    UnreadableImage
        The pixels are damaged.
    """
    with _decoder_errors():
        if still.kind in ("JPEG", "PNG", "WebP"):
            pixels = _decode_opencv(still, reduction)
            return upright(to_bgr8(pixels, still.transparent), still.orientation)
        with quiet, strict_pillow:
            image = _pillow_image(still)
        if image.size != (still.width, still.height):  # two parsers read it
            raise UnreadableImage(f"the {still.kind} is damaged: its size cannot be told")
        pixels = from_pillow(image)
        del image
        return upright(pixels, still.orientation)


def load(
    image: ImageInput, limits: Limits = DEFAULT_LIMITS, decoder: Decoder = decode_still
) -> NDArray[np.uint8]:
    """Decode an image and turn it upright.

    Parameters
    ----------
    image : path, bytes-like, binary file, PIL.Image.Image or ndarray
        JPEG, PNG, WebP, BMP, TIFF or JPEG 2000 data, and HEIC or AVIF with the extra ``heif``,
        are turned by their EXIF orientation, and so is a ``PIL.Image`` that carries one. A file
        is read from where it stands to its end. An array is (H, W, 3) uint8 in BGR order and
        taken to be upright.
    limits : Limits, optional
        Bytes, pixels and memory to accept.
    decoder : Decoder, optional
        Where encoded images are decoded: in this process, or by an `IsolatedDecoder`. A
        ``PIL.Image`` is always decoded in this process.

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
    return open_picture(image, limits, decoder).pixels()


def is_independent(image: object) -> bool:
    """Whether another thread may read it: not of a file that is open, or an image of Pillow's."""
    return isinstance(
        image, str | os.PathLike | bytes | bytearray | memoryview | Picture | np.ndarray
    )


def open_picture(
    image: ImageInput, limits: Limits = DEFAULT_LIMITS, decoder: Decoder = decode_still
) -> Picture:
    """Check an image, and decode it when its pixels are needed.

    Parameters and errors are those of `load`. Errors of damaged pixels are raised by the
    `Picture` when it decodes them.  A `Picture` is returned as it is.
    """
    if isinstance(image, Picture):
        check_pixels((image.width, image.height), limits)
        return image
    if isinstance(image, np.ndarray):
        return Picture.of(_from_array(image, limits))
    # A caller with a PIL image has imported PIL. While another thread still imports it, the
    # class does not exist yet.
    pillow_image = getattr(sys.modules.get("PIL.Image"), "Image", None)
    if pillow_image is not None and isinstance(image, pillow_image):
        check_pixels(image.size, limits)
        memory = 7 * image.size[0] * image.size[1]  # Pillow's pixels and those that come out
        check_memory(image.size, memory, limits)
        with _decoder_errors():
            return Picture.of(from_pillow(image))
    data = read_bytes(image, limits)
    with _decoder_errors():
        still = read_still(data, limits)
    return Picture(*still.upright_size, partial(decoder, still), reductions=still.reductions)


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Turn what decoders raise on hostile bytes, which is nearly anything, into one error."""
    try:
        yield
    except FacecoreError:
        raise
    except MemoryError as error:
        raise ImageTooLarge("not enough memory is left to decode the image") from error
    except Exception as error:
        if getattr(error, "code", 0) == -4:  # OpenCV's Insufficient memory
            raise ImageTooLarge("not enough memory is left to decode the image") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"the image cannot be decoded: {reason:.300}") from error


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


def _decode_opencv(still: Still, reduction: int) -> NDArray[Any]:
    import cv2

    if still.kind == "JPEG":
        name = f"IMREAD_REDUCED_COLOR_{reduction}" if reduction > 1 else "IMREAD_COLOR"
        kind = getattr(cv2, name)
    else:
        kind = cv2.IMREAD_UNCHANGED  # keeps 16 bits and alpha
    with quiet:
        pixels = cv2.imdecode(np.frombuffer(still.data, np.uint8), kind)
        # Two parsers read the size; they must agree.
        sides = tuple(-(-side // reduction) for side in (still.width, still.height))
        if pixels is None or pixels.shape[1::-1] != sides:
            raise UnreadableImage("the image is damaged: its pixels cannot be decoded")
        if still.doubt and not _has_all_blocks(still.data, pixels, kind):
            raise UnreadableImage(still.doubt)
    return pixels


def _has_all_blocks(data: bytes, pixels: NDArray[Any], kind: int) -> bool:
    """Whether a JPEG that was given its end marker lacked no block before it.

    A decoder makes missing blocks up from what follows.  If something else follows and the pixels
    stay the same, no block was missing.
    """
    import cv2

    scan = data.rindex(b"\xff\xda")
    start = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4])
    other = data[start : start + 4096].split(b"\xff")[0] + b"\x35\xca" * 64
    restarts = b"".join(bytes([0xFF, 0xD0 + i % 8]) + other for i in range(16))
    again = data[:-2] + other + restarts + data[-2:]
    others = cv2.imdecode(np.frombuffer(again, np.uint8), kind)
    return others is not None and np.array_equal(pixels, others)


# Kind -> where Pillow reads it. `PIL.Image.open` would import and ask forty others.
_PLUGINS: dict[str, str] = {"TIFF": "Tiff", "BMP": "Bmp", "JPEG 2000": "Jpeg2K"}


def _pillow_image(still: Still) -> PIL.Image.Image:
    if still.kind == "HEIF":
        return open_heif(still.data)
    name = _PLUGINS[still.kind]
    plugin: Callable[[Any], PIL.Image.Image] = getattr(
        import_module(f"PIL.{name}ImagePlugin"),
        f"{name}ImageFile",
    )
    return plugin(io.BytesIO(still.data))
