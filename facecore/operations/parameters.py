"""Read a request by its operation's table of parameters.

The module `tables` has the tables, with one row per documented parameter.
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
        Answer with `missing` if the parameter is absent or empty.
    default : str
        Value of an absent parameter.
    allowed : tuple of str
        The accepted values, exactly.  If `allowed` and `pattern` are empty, any value is.
    pattern : str
        Regular expression that the whole value must match.
    when : mapping of str to tuple of str
        Values of other parameters under which this one is read; otherwise it counts as absent.
    separator : str
        Regular expression between the items of a list; "" if the value is not a list.  A tuple
        is a list too, and its items may contain separators.
    ignored : bool
        Reserved: accepts any value and has no effect.
    missing, invalid : Code
        Codes for an absent and for an invalid value.
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
        """Refuse a value that is not accepted; None stands for a value that is not text."""
        if value is not None and self.allowed and value not in self.allowed:
            raise OperationError(
                self.invalid, f"{self.name} is {value!r:.80}, must be {' or '.join(self.allowed)}."
            )
        if (
            value is None
            or (self.pattern and not re.fullmatch(self.pattern, value, re.DOTALL))
            or re.search("[\ud800-\udfff]", value)  # lone surrogates, which no encoding holds
        ):
            raise OperationError(self.invalid, f"{self.name} has a value that is not accepted.")


@dataclass(frozen=True, slots=True)
class PictureParameter:
    """A row of the table: a picture, which can be given in several ways.

    Attributes
    ----------
    name : str
        Name in messages.
    text, url : str
        Parameters that hold the picture as base64, and its address; "" if there is none.
    files : tuple of str
        Parameters that hold the file itself, or the address it was uploaded to.
    when : mapping of str to tuple of str
        As in `Parameter`; a picture that is read is required.
    missing : Code
        Code for an absent picture.
    """

    name: str
    text: str
    url: str = ""
    files: tuple[str, ...] = ()
    when: Conditions = field(default_factory=dict)
    missing: Code = MISSING_PARAMETER


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that is given as a file or bytes instead of text.

    Attributes
    ----------
    source : bytes-like, path or binary file
    """

    source: object = field(repr=False)

    @property
    def name(self) -> str:
        """File name without folder and extension; "" if there is none."""
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
        Text; an `Upload` if the kind is "file".  Any other value is not a picture.
    """

    parameter: str
    kind: Literal["text", "url", "file"]
    value: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class Values:
    """A request that has passed the checks of its table.

    Attributes
    ----------
    texts : mapping of str to str
        Every parameter of the table that is read; "" if it is absent.
    lists : mapping of str to tuple of str
        The items of every list that is read, without repetition.
    pictures : mapping of str to tuple of Given
        Every picture that is read, each given in at least one way.
    """

    texts: Mapping[str, str]
    lists: Mapping[str, tuple[str, ...]]
    pictures: Mapping[str, tuple[Given, ...]] = field(repr=False)

    def __getitem__(self, name: str) -> str:
        return self.texts[name]


def read(table: Sequence[Parameter | PictureParameter], params: Mapping[str, object]) -> Values:
    """Check a request against its table: first for missing values, then for invalid ones.

    Parameters
    ----------
    table : sequence of Parameter or PictureParameter
        In the document's order.
    params : mapping of str to object
        Numbers are converted to text; None and "" count as absent.  Parameters without a row are
        ignored.

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
    """Return text unchanged, numbers as text, "" for absent values, None for all others."""
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
