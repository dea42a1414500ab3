"""Convert queries and forms, ``name=value&name=value``, to the parameters of an operation.

Lookup tables decode and encode percent escapes in whole blocks.  A body of 15 MiB arrives before
its sender is authenticated, so Python must not process its bytes one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from facecore.server.refusals import Refusal

__all__ = ["escape", "escape_twice", "merge", "read_form", "split_form", "unescape"]

FIELDS = 100  # several times as many as the largest operation and its signature need
# Longer values are pictures in base64.  In other text, one character can make Python store every
# character in four bytes.
TEXT_BYTES = 1 << 16
BLOCK = 1 << 18

Field = tuple[memoryview, memoryview]

_DIGIT = np.full(256, 255, np.uint8)  # value of a hexadecimal digit; 255 for all other bytes
for _value in range(16):
    _DIGIT[ord(f"{_value:x}")] = _DIGIT[ord(f"{_value:X}")] = _value


def split_form(data: bytes | bytearray) -> list[Field]:
    """Split a form into encoded names and values, in order; without ``=`` the value is "".

    Raises
    ------
    Refusal
        InvalidParameter: more than 100 fields.
    """
    fields = []
    with memoryview(data) as view:
        start = count = 0
        while start < len(data):
            count += 1  # empty ones too
            if count > FIELDS:
                raise Refusal("InvalidParameter", f"There are more than {FIELDS} fields.")
            end = data.find(b"&", start)
            end = len(data) if end < 0 else end
            equals = data.find(b"=", start, end)
            equals = end if equals < 0 else equals
            if end > start:
                fields.append((view[start:equals], view[equals + 1 : end]))
            start = end + 1
    return fields


def read_form(data: bytes | bytearray) -> list[tuple[str, str]]:
    """Return the decoded names and values, in order.

    Raises
    ------
    Refusal
        InvalidParameter: as in `split_form` and `unescape`; text that is not UTF-8; a value of
        more than 64 KiB that is not ASCII.
    """
    return [(_text(name), _text(value)) for name, value in split_form(data)]


def merge(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters of the query and the form by name.

    Raises
    ------
    Refusal
        InvalidParameter: a name has two values, of which two readers could choose different ones.
    """
    merged: dict[str, str] = {}
    for name, value in fields:
        if merged.setdefault(name, value) != value:
            raise Refusal("InvalidParameter", f"{name!r:.80} is given twice.")
    return merged


def unescape(data: memoryview | bytes) -> Iterator[bytes]:
    """Yield the decoded blocks of a name or value; ``+`` is a space.

    Raises
    ------
    Refusal
        InvalidParameter: a ``%`` without two hexadecimal digits.
    """
    start = 0
    while start < len(data):
        block = bytes(data[start : start + BLOCK])
        cut = block.find(b"%", BLOCK - 2)
        if cut >= 0 and start + BLOCK < len(data):  # an escape goes on in the next block
            block = block[:cut]
        start += len(block)
        block = block.replace(b"+", b" ")
        yield _decode(block) if b"%" in block else block


def _decode(block: bytes) -> bytes:
    codes = np.frombuffer(block + b"  ", np.uint8).copy()  # room for digits that are missing
    at = np.flatnonzero(codes == ord("%"))
    high, low = _DIGIT[codes[at + 1]], _DIGIT[codes[at + 2]]
    if max(high.max(), low.max()) > 15:
        raise Refusal("InvalidParameter", "A % is not followed by two hexadecimal digits.")
    codes[at] = high << 4 | low
    kept = np.ones(len(codes), np.bool_)
    kept[at + 1] = kept[at + 2] = kept[-2:] = False
    return codes[kept].tobytes()


def _escapes(prefix: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return the table of escapes for each byte, padded with zeros to one width."""
    unreserved = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"
    table = np.zeros((256, len(prefix) + 2), np.uint8)
    for code in range(256):
        text = bytes([code]) if code in unreserved else prefix + b"%02X" % code
        table[code, : len(text)] = list(text)
    return table


_ONCE, _TWICE = _escapes(b"%"), _escapes(b"%25")


def escape(data: bytes) -> bytes:
    """Percent-encode as in RFC 3986; only letters, digits and ``-_.~`` stay."""
    return _ONCE[np.frombuffer(data, np.uint8)].tobytes().translate(None, b"\0")


def escape_twice(data: bytes) -> bytes:
    """Return ``escape(escape(data))``."""
    return _TWICE[np.frombuffer(data, np.uint8)].tobytes().translate(None, b"\0")


def _text(data: memoryview) -> str:
    decoded = bytearray()
    for block in unescape(data):
        decoded += block
    if len(decoded) > TEXT_BYTES and not decoded.isascii():
        raise Refusal("InvalidParameter", f"A value of more than {TEXT_BYTES} bytes is not ASCII.")
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise Refusal("InvalidParameter", "The query or the form is not UTF-8.") from None
