"""Reads a request by its operation's table of parameters.

The tables themselves stand in `tables`, a row per parameter of the document.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal, TypeAlias

from facecore.operations.codes import (
    INVALID_PARAMETER,
    MISSING_PARAMETER,
    Code,
    OperationError,
)

__all__ = ["Given", "Parameter", "PictureParameter", "Upload", "Values", "read"]

Conditions: TypeAlias = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A row of the table: a parameter that is text.

    Attributes
    ----------
    name : str
    required : bool
        Absent or empty, it is answered with `missing`.
    default : str
        Taken for an absent one.
    allowed : tuple of str
        Every value that is accepted, exactly; with `pattern` empty too, any is.
    pattern : str
        Regular expression of the whole value.
    when : mapping of str to tuple of str
        Values of other parameters with which this one is looked at; otherwise it counts as
        absent.
    separator : str
        Regular expression between the items of a list; "" if the value is not a list.  A tuple
        is such a list too: its items may hold separators.
    ignored : bool
        Reserved: accepted in every value, and without effect.
    missing, invalid : Code
        Codes of a violation.
    """

    name: str
    required: bool = False
    default: str = ""
    allowed: tuple[str, ...] = ()
    pattern: str = ""
    when: Conditions = field(default_factory=dict)
    separator: str = ""
    ignored: bool = False
    missing: Code = MISSING_PARAMETER
    invalid: Code = INVALID_PARAMETER

    def check(self, value: str | None) -> None:
        """Refuse a value that is given and not accepted; None is a value that is not text."""
        if value is not None and self.allowed and value not in self.allowed:
            raise OperationError(
                self.invalid, f"{self.name} is {value!r:.80}, must be {' or '.join(self.allowed)}."
            )
        if (
            value is None
            or (self.pattern and not re.fullmatch(self.pattern, value, re.DOTALL))
            or re.search("[\ud800-\udfff]", value)  # halves of pairs, which no encoding holds
        ):
            raise OperationError(self.invalid, f"{self.name} has a value that is not accepted.")


@dataclass(frozen=True, slots=True)
class PictureParameter:
    """A row of the table: a picture, which can be given in several ways.

    Attributes
    ----------
    name : str
        How messages call it.
    text, url : str
        Parameters that hold it as base64, and its address; "" if there is none.
    files : tuple of str
        Parameters that hold the file itself, or the address it was uploaded to.
    when : mapping of str to tuple of str
        As of a `Parameter`; a picture that is looked at is required.
    missing : Code
        Code of its absence.
    """

    name: str
    text: str
    url: str = ""
    files: tuple[str, ...] = ()
    when: Conditions = field(default_factory=dict)
    missing: Code = MISSING_PARAMETER


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that is given as it is, in the place of text.

    Attributes
    ----------
    source : bytes-like, path or binary file
    """

    source: object = field(repr=False)

    @property
    def name(self) -> str:
        """The file's name without its folder and ending; "" if there is none."""
        name = self.source if isinstance(self.source, (str, os.PathLike)) else None
        if name is None:
            name = getattr(self.source, "name", "")
        return PurePath(os.fsdecode(name)).stem if isinstance(name, (str, os.PathLike)) else ""


@dataclass(frozen=True, slots=True)
class Given:
    """One way in which a picture was given.

    Attributes
    ----------
    parameter : str
    kind : {"text", "url", "file"}
    value : object
        Text; an `Upload` if the kind is "file".  All else is not a picture.
    """

    parameter: str
    kind: Literal["text", "url", "file"]
    value: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class Values:
    """A request that has passed its table.

    Attributes
    ----------
    texts : mapping of str to str
        Every parameter of the table that is looked at; "" where it is absent.
    lists : mapping of str to tuple of str
        The items of every list that is looked at, each once.
    pictures : mapping of str to tuple of Given
        Every picture that is looked at, at least one way of each.
    """

    texts: Mapping[str, str]
    lists: Mapping[str, tuple[str, ...]]
    pictures: Mapping[str, tuple[Given, ...]] = field(repr=False)

    def __getitem__(self, name: str) -> str:
        return self.texts[name]


def read(table: Sequence[Parameter | PictureParameter], params: Mapping[str, object]) -> Values:
    """Hold a request against its table: first all that is missing, then all that is wrong.

    Parameters
    ----------
    table : sequence of Parameter or PictureParameter
        In the document's order.
    params : mapping of str to object
        Numbers count as the text they print; None and "" count as absent.  What the table does
        not know is left alone.

    Raises
    ------
    OperationError
        The code of the first row that is violated.
    """
    found: dict[str, str | None] = {}
    lists: dict[str, tuple[str, ...]] = {}
    pictures: dict[str, tuple[Given, ...]] = {}
    used = []
    for row in table:
        if isinstance(row, Parameter) and not row.ignored:
            given = params.get(row.name)
            if row.separator and isinstance(given, tuple):
                lists[row.name] = tuple(dict.fromkeys(map(str, given)))
                given = ",".join(lists[row.name])
            value = _text(given)
            found[row.name] = row.default if value == "" else value
    for row in table:
        if not all(found[name] in values for name, values in row.when.items()):
            if isinstance(row, Parameter):
                found[row.name] = ""
            continue
        if isinstance(row, PictureParameter):
            pictures[row.name] = _ways(row, params)
            if not pictures[row.name]:
                names = " or ".join(filter(None, (row.text, row.url)))
                raise OperationError(row.missing, f"{names} is missing or empty.")
        elif not row.ignored:
            if row.required and found[row.name] == "":
                raise OperationError(row.missing, f"{row.name} is missing or empty.")
            used.append(row)
    for row in used:
        if found[row.name] != "":
            row.check(found[row.name])
    texts = {name: value or "" for name, value in found.items()}
    for row in used:
        if row.separator and row.name not in lists:
            items = map(str.strip, re.split(row.separator, texts[row.name]))
            lists[row.name] = tuple(dict.fromkeys(filter(None, items)))
    return Values(texts, lists, pictures)


def _text(value: object) -> str | None:
    """Text unchanged, numbers as their text, "" for absent values, None for all others."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return str(value) if isinstance(value, (int, float)) else None
    except ValueError:  # Python prints no integer of more than 4300 digits
        return None


def _ways(row: PictureParameter, params: Mapping[str, object]) -> tuple[Given, ...]:
    ways = []
    for name in filter(None, (row.text, row.url, *row.files)):
        value = params.get(name)
        text = _text(value)
        if text:
            ways.append(Given(name, "text" if name == row.text else "url", text))
        elif text is None:  # bytes are a file only where a file is expected
            upload = value if isinstance(value, Upload) or name not in row.files else Upload(value)
            ways.append(Given(name, "file", upload))
    return tuple(ways)
