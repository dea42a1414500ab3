"""Forms, with the standard library as the oracle."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote_plus, unquote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecore.server.forms import FIELDS, merge, read_form
from facecore.server.refusals import Refusal

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(texts, texts), max_size=8))
def test_what_was_encoded_comes_back(fields: list[tuple[str, str]]) -> None:
    assert read_form(urlencode(fields).encode()) == fields


@given(st.text("%2BbFf3D+ &=/a\r\n_", max_size=24))
def test_odd_escapes_are_read_as_the_standard_library_reads_them(text: str) -> None:
    try:
        expected = parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        with pytest.raises(Refusal, match="UTF-8"):
            read_form(text.encode())
        return
    assert read_form(text.encode()) == expected


@pytest.mark.parametrize(
    "value", ["%252B", "%2%2BB", "%2b", "%", "%%2B", "%2B%zz", "+%2B+", "%\n2B", "a%\r\n"]
)
def test_escapes_within_escapes(value: str) -> None:
    assert read_form(b"a=" + value.encode()) == [("a", unquote_plus(value))]


def test_bytes_that_are_no_text() -> None:
    for data in (b"a=\xff", b"a=%ff", b"%c3=a"):
        with pytest.raises(Refusal, match="UTF-8"):
            read_form(data)
    assert read_form("ü=ß".encode()) == [("ü", "ß")]


def test_too_many_fields() -> None:
    assert len(read_form(b"&".join([b"a=b"] * FIELDS))) == FIELDS
    with pytest.raises(Refusal, match="more than"):
        read_form(b"&".join([b"a=b"] * (FIELDS + 1)))


def test_a_name_has_one_value() -> None:
    assert merge([("a", "1"), ("b", ""), ("a", "1")]) == {"a": "1", "b": ""}
    with pytest.raises(Refusal, match="'a' is given twice"):
        merge([("a", "1"), ("a", "2")])


def test_base64_survives() -> None:
    value = "ab+/" * 1000 + "=="
    assert read_form(b"p=" + quote_plus(value).encode()) == [("p", value)]
    assert read_form(b"p=" + value.encode())[0][1] == value.replace("+", " ")
