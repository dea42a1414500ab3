"""Forms, with the standard library as the oracle."""

from __future__ import annotations

import contextlib
import re
import sys
import tracemalloc
from types import FrameType
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecore.server import forms
from facecore.server.forms import FIELDS, escape, escape_twice, merge, read_form
from facecore.server.refusals import Refusal

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(texts, texts), max_size=8))
def test_what_was_encoded_comes_back(fields: list[tuple[str, str]]) -> None:
    assert read_form(urlencode(fields).encode()) == fields


@given(st.text("%2BbFf3D+ &=/a\r\n_", max_size=24), st.sampled_from([8, 1 << 16]))
def test_escapes_are_read_as_the_standard_library_reads_them(text: str, block: int) -> None:
    """Also if an escape spans two blocks; an invalid escape is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "BLOCK", block)
        if re.search("%(?![0-9A-Fa-f]{2})", text):
            # Another field may be wrong too, and come first.
            with pytest.raises(Refusal, match=r"hexadecimal|UTF-8"):
                read_form(text.encode())
            return
        try:
            expected = parse_qsl(text, keep_blank_values=True, errors="strict")
        except UnicodeDecodeError:
            with pytest.raises(Refusal, match="UTF-8"):
                read_form(text.encode())
            return
        assert read_form(text.encode()) == expected


@pytest.mark.parametrize("value", ["%252B", "%2b", "%3D%26", "+%2B+", "%0D%0A", "\n=="])
def test_escapes_within_escapes(value: str) -> None:
    assert read_form(b"a=" + value.encode()) == [("a", unquote_plus(value))]


@pytest.mark.parametrize("value", ["%", "%2", "%%2B", "%2B%zz", "%2%2BB", "%\n2B", "%ü", "a%"])
def test_broken_escapes_are_refused(value: str) -> None:
    for field in (f"a={value}", f"{value}=a", f"b=%41&a={value}"):
        with pytest.raises(Refusal, match="hexadecimal"):
            read_form(field.encode())


@given(st.binary(max_size=40))
def test_values_are_escaped_as_signatures_want_them(data: bytes) -> None:
    once = quote(data, safe="")
    assert escape(data).decode() == once
    assert escape_twice(data).decode() == quote(once, safe="")


@pytest.mark.parametrize(
    "unit", [b"%", b"%zz", b"%41", b"+", b"=", b"a", b"%f0%9f%98%80", b"\xff", b"%00"]
)
def test_a_body_costs_no_step_of_python_per_byte(unit: bytes) -> None:
    """Executed lines and memory grow with the number of blocks, for any bytes."""
    size = 8 * 2**20
    body = b"a=" + unit * (size // len(unit))
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    tracemalloc.start()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(Refusal):
            read_form(body)
    finally:
        sys.settrace(before)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert lines < 200 + 60 * size // forms.BLOCK
    assert peak < 2.5 * size


def test_long_values_are_ascii() -> None:
    """One non-ASCII character makes Python store up to four bytes for every other one."""
    value = "a" * forms.TEXT_BYTES
    assert read_form(b"a=" + value.encode()) == [("a", value)]
    with pytest.raises(Refusal, match="not ASCII"):
        read_form(b"a=" + quote_plus(value + "\U0001f600").encode())


def test_bytes_that_are_no_text() -> None:
    for data in (b"a=\xff", b"a=%ff", b"%c3=a"):
        with pytest.raises(Refusal, match="UTF-8"):
            read_form(data)
    assert read_form("ü=ß".encode()) == [("ü", "ß")]


def test_too_many_fields() -> None:
    assert len(read_form(b"&".join([b"a=b"] * FIELDS))) == FIELDS
    with pytest.raises(Refusal, match="more than"):
        read_form(b"&".join([b"a=b"] * (FIELDS + 1)))
    assert read_form(b"&" * (FIELDS - 1) + b"a=b") == [("a", "b")]
    with pytest.raises(Refusal, match="more than"):
        read_form(b"&" * FIELDS + b"a=b")


def test_a_name_has_one_value() -> None:
    assert merge([("a", "1"), ("b", ""), ("a", "1")]) == {"a": "1", "b": ""}
    with pytest.raises(Refusal, match="'a' is given twice"):
        merge([("a", "1"), ("a", "2")])


def test_base64_survives() -> None:
    value = "ab+/" * 1000 + "=="
    assert read_form(b"p=" + quote_plus(value).encode()) == [("p", value)]
    assert read_form(b"p=" + value.encode())[0][1] == value.replace("+", " ")
