"""Decode an image to upright 8-bit BGR pixels.

OpenCV, the faster decoder, handles JPEG, PNG and WebP; Pillow handles TIFF, BMP, JPEG 2000, HEIC
and AVIF.  Both get a file rebuilt from the parts of a still picture (`facecore.images.formats`).
Transparent pixels become white.  Animations and multi-page files yield the still or first picture.
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
from facecore.images.formats import Still, heif_size, open_heif, pillow_size, read_still
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
    """Decodes pixels, in this process or in another one."""

    def __call__(self, still: Still, reduction: int) -> NDArray[np.uint8]:
        """Return the upright pixels at 1/`reduction` of the size; see `decode_still`."""
        ...


def decode_still(still: Still, reduction: int) -> NDArray[np.uint8]:
    """Decode a picture with a checked container, in this process.

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
        size = still.width, still.height
        ambiguous = UnreadableImage(f"the {still.kind} is damaged: its size is ambiguous")
        if pillow_size(image) != size:  # the two parsers disagree
            raise ambiguous
        pixels = from_pillow(image)
        del image
        if pixels.shape[1::-1] != size:  # the decoder disagrees with its own header
            raise ambiguous
        return upright(pixels, still.orientation)


def checked_heif_size(data: bytes) -> tuple[int, int]:
    """Return the upright width and height of a HEIC or AVIF file, or raise a typed error."""
    with _decoder_errors():
        return heif_size(data)


def load(
    image: ImageInput, limits: Limits = DEFAULT_LIMITS, decoder: Decoder = decode_still
) -> NDArray[np.uint8]:
    """Decode an image to upright pixels.

    Parameters
    ----------
    image : path, bytes-like, binary file, PIL.Image.Image or ndarray
        JPEG, PNG, WebP, BMP, TIFF or JPEG 2000 data, HEIC or AVIF data with the extra ``heif``,
        and ``PIL.Image`` objects are rotated by their EXIF orientation. A binary file is read
        from its current position to its end. An array is (H, W, 3) uint8 in BGR order, already
        upright.
    limits : Limits, optional
        Maximum bytes, pixels and memory.
    decoder : Decoder, optional
        Decodes encoded images: in this process by default, in another one with an
        `IsolatedDecoder`. A ``PIL.Image`` is always decoded in this process.

    Returns
    -------
    (H, W, 3) uint8 ndarray
        BGR, C-contiguous. A contiguous input array is returned without a copy.

    Raises
    ------
    UnreadableImage
        If the file is missing, empty, incomplete, damaged or of an unsupported format.
    ImageTooLarge
        If the input exceeds a limit.
    InvalidParameter
        If `image` has another type, or is an array of another shape or dtype.

    Notes
    -----
    16-bit samples are divided by 257 and rounded, except in colour TIFFs, where Pillow keeps the
    high byte (at most one level lower). 32-bit grey is accepted if its scale is known: integers
    in 0..65535, floats in 0..1.

    Damage is always detected in PNG (checksums), and in JPEG and WebP if it breaks the structure.
    A wrong byte in the coded pixels of a JPEG or WebP decodes to wrong pixels, as in any decoder.
    """
    return open_picture(image, limits, decoder).pixels()


def is_independent(image: object) -> bool:
    """Return whether another thread may read `image`: not an open file or a Pillow image."""
    return isinstance(
        image, str | os.PathLike | bytes | bytearray | memoryview | Picture | np.ndarray
    )


def open_picture(
    image: ImageInput, limits: Limits = DEFAULT_LIMITS, decoder: Decoder = decode_still
) -> Picture:
    """Check an image now, and decode it when its pixels are needed.

    Parameters and errors are those of `load`, but the `Picture` raises errors of damaged pixels
    when it decodes them.  Returns a `Picture` unchanged.
    """
    if isinstance(image, Picture):
        check_pixels((image.width, image.height), limits)
        return image
    if isinstance(image, np.ndarray):
        return Picture.of(_from_array(image, limits))
    # A caller with a PIL image has imported PIL; the class is missing while another thread
    # imports it.
    pillow_image = getattr(sys.modules.get("PIL.Image"), "Image", None)
    if pillow_image is not None and isinstance(image, pillow_image):
        check_pixels(image.size, limits)
        memory = 7 * image.size[0] * image.size[1]  # Pillow's pixels and the result
        check_memory(image.size, memory, limits)
        with _decoder_errors():
            return Picture.of(from_pillow(image))
    data = read_bytes(image, limits)
    with _decoder_errors():
        still = read_still(data, limits, getattr(decoder, "heif_size", heif_size))
    return Picture(
        *still.upright_size, partial(decoder, still), reductions=still.reductions, still=still
    )


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Convert exceptions of decoders to UnreadableImage, and lack of memory to ImageTooLarge."""
    try:
        yield
    except FacecoreError:
        raise
    except MemoryError as error:
        raise ImageTooLarge("not enough memory to decode the image") from error
    except Exception as error:
        if getattr(error, "code", 0) == -4:  # OpenCV: insufficient memory
            raise ImageTooLarge("not enough memory to decode the image") from error
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
        # OpenCV and our parser must agree on the size.
        sides = tuple(-(-side // reduction) for side in (still.width, still.height))
        if pixels is None or pixels.shape[1::-1] != sides:
            raise UnreadableImage("the image is damaged: its pixels cannot be decoded")
        if still.doubt and not _has_all_blocks(still.data, pixels, kind):
            raise UnreadableImage(still.doubt)
    return pixels


def _has_all_blocks(data: bytes, pixels: NDArray[Any], kind: int) -> bool:
    """Return whether all blocks precede the end marker that was appended to a JPEG.

    A decoder fills missing blocks from the data that follows.  If other data follows and the
    pixels stay the same, no block was missing.
    """
    import cv2

    scan = data.rindex(b"\xff\xda")
    start = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4])
    other = data[start : start + 4096].split(b"\xff")[0] + b"\x35\xca" * 64
    restarts = b"".join(bytes([0xFF, 0xD0 + i % 8]) + other for i in range(16))
    again = data[:-2] + other + restarts + data[-2:]
    others = cv2.imdecode(np.frombuffer(again, np.uint8), kind)
    return others is not None and np.array_equal(pixels, others)


# Kind -> Pillow plugin. `PIL.Image.open` would import forty others.
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
