"""Decode any image input to upright 8-bit BGR pixels.

All limits on untrusted input are checked before decoding: the number of bytes while reading, the
pixels and memory from the file's header, and the completeness of the file (decoders fill missing
data with grey).  Decoders, in this process or in another one (`IsolatedDecoder`), get a file
rebuilt from the parts of a still picture.
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
