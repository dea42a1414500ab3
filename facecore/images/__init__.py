"""Anything a caller holds, turned into upright 8-bit BGR pixels.

Every limit on untrusted bytes lives here, and each is checked before a pixel is decoded: the
bytes while they are read, the pixels and the memory from the file's header, and, because decoders
fill missing data with grey, that the file is complete.  Decoders get a file that was rebuilt from
the parts of a still picture, in this process or in another one (`IsolatedDecoder`).
"""

from facecore.images.decode import (
    Decoder,
    ImageInput,
    decode_still,
    is_independent,
    load,
    open_picture,
)
from facecore.images.isolated import IsolatedDecoder
from facecore.images.limits import DEFAULT_LIMITS, Limits
from facecore.images.picture import Picture
from facecore.images.read import read_bytes

__all__ = [
    "DEFAULT_LIMITS",
    "Decoder",
    "ImageInput",
    "IsolatedDecoder",
    "Limits",
    "Picture",
    "decode_still",
    "is_independent",
    "load",
    "open_picture",
    "read_bytes",
]
