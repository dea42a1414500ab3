"""Queries and forms: from ``name=value&name=value`` to the parameters of an operation."""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from facecore.server.refusals import Refusal

__all__ = ["merge", "read_form"]

FIELDS = 100  # the largest operation has 20


def read_form(data: bytes) -> list[tuple[str, str]]:
    """Decoded fields, in their order; those without a value have "".

    Raises
    ------
    Refusal
        InvalidParameter: too many fields, or bytes that are no UTF-8.
    """
    try:
        if data.count(b"&") >= FIELDS:
            raise Refusal("InvalidParameter", f"There are more than {FIELDS} fields.")
        fields = (field.partition(b"=") for field in data.split(b"&") if field)
        return [(_decode(name), _decode(value)) for name, _, value in fields]
    except UnicodeDecodeError:
        raise Refusal("InvalidParameter", "The query or the form is no UTF-8.") from None


def merge(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Parameters by name, from the query and the form.

    Raises
    ------
    Refusal
        InvalidParameter: a name has two values, which two readers could choose differently.
    """
    merged: dict[str, str] = {}
    for name, value in fields:
        if merged.setdefault(name, value) != value:
            raise Refusal("InvalidParameter", f"{name!r:.80} is given twice.")
    return merged


def _decode(data: bytes) -> str:
    """Percent decoding, in which ``+`` is a space."""
    data = data.replace(b"+", b" ")
    escapes = data.count(b"%")
    if escapes and not any(special in data for special in (b"=", b"\r", b"\n")):
        # Quoted-printable has the same escapes behind another sign, and a decoder in C; for a
        # picture in base64 the standard library's unquote takes forty times as long.  An escape
        # that is none gives a result of another length.
        decoded = binascii.a2b_qp(data.replace(b"%", b"="))
        if len(decoded) == len(data) - 2 * escapes:
            return decoded.decode()
    return unquote_to_bytes(data).decode() if escapes else data.decode()
