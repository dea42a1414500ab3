"""Read HEIC and AVIF, which phones write; this needs the extra ``heif``."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from facecore.errors import UnreadableImage
from facecore.images.formats.still import Still, pillow_size
from facecore.images.limits import Limits, check_memory, check_pixels
from facecore.images.quiet import quiet, strict_pillow

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["heif_kind", "heif_size", "open_heif", "read_heif"]

_AVIF = frozenset([b"avif", b"avis"])
_HEIC = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"])


def heif_kind(data: bytes) -> str | None:
    """Return "HEIC" or "AVIF", by the brands of the file, or None."""
    if data[4:8] != b"ftyp":
        return None
    brands = data[8 : min(int.from_bytes(data[:4]), 256)]
    named = {brands[i : i + 4] for i in range(0, len(brands), 4)}
    return "AVIF" if named & _AVIF else "HEIC" if named & _HEIC else None


def heif_size(data: bytes) -> tuple[int, int]:
    """Read the upright width and height with libheif or libavif, in this process."""
    with quiet, strict_pillow:
        return pillow_size(open_heif(data))


def read_heif(data: bytes, limits: Limits, measure: Callable[[bytes], tuple[int, int]]) -> Still:
    """Check the size of a HEIC or AVIF picture.

    The container is not rebuilt: libheif and libavif limit its parts.  Read untrusted files in
    another process (``FaceEngine(isolate_decoding=True)``).
    """
    size = measure(data)
    check_pixels(size, limits)
    # YUV, RGB, alpha, Pillow's copies and the result; only AVIF is turned by us.
    memory = size[0] * size[1] * (16 if heif_kind(data) == "AVIF" else 13)
    check_memory(size, memory, limits, len(data))
    return Still("HEIF", data, *size, memory)  # upright, as the pixels of `from_pillow`


def open_heif(data: bytes) -> PIL.Image.Image:
    """Open a picture without decoding it; only its EXIF data hold an orientation."""
    kind = heif_kind(data) or "HEIC"
    try:
        # Pillow reads AVIF without the extra, but the containers are not rebuilt: the user
        # opts in by installing the extra.
        plugin, reader = import_module("pillow_heif"), "HeifImageFile"
        if kind == "AVIF":
            plugin, reader = import_module("PIL.AvifImagePlugin"), "AvifImageFile"
    except ImportError as error:
        way = "pip install 'facecore[heif]'"
        raise UnreadableImage(
            f"reading {kind} needs pillow-heif", f"{way}, or save the picture as JPEG"
        ) from error
    image: PIL.Image.Image = getattr(plugin, reader)(io.BytesIO(data))
    return image
