"""Anything a caller holds, turned into upright 8-bit BGR pixels.

Every limit on untrusted bytes lives here, and each is checked before a pixel is decoded: the
bytes while they are read, the pixels from the file's header, and, because decoders fill missing
data with grey, that the file is complete.
"""

from facecore.images.decode import ImageInput, is_independent, load, open_picture
from facecore.images.limits import DEFAULT_LIMITS, Limits
from facecore.images.picture import Picture
from facecore.images.read import read_bytes

__all__ = [
    "DEFAULT_LIMITS",
    "ImageInput",
    "Limits",
    "Picture",
    "is_independent",
    "load",
    "open_picture",
    "read_bytes",
]
