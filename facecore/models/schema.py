"""Strict parsing of TOML into dataclasses: no unknown, missing or coerced fields."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import types
import typing
from functools import cache
from typing import Any, TypeVar

from facecore._utils.text import is_printable
from facecore.errors import PackCorrupt

if typing.TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

# A manifest has a few kilobytes; larger files are rejected.
MAX_TOML_BYTES = 1 << 20

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PACK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class FieldError(ValueError):
    """A field of a TOML file is invalid.

    Attributes
    ----------
    field : str
        Dotted path of the field in the file.
    problem : str
        Description of the problem.
    """

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem
        super().__init__(f"{field}: {problem}")


def require(condition: bool, field: str, problem: str) -> None:
    """Raise `FieldError` unless `condition` holds."""
    if not condition:
        raise FieldError(field, problem)


def is_pack_name(name: str) -> bool:
    """Return whether `name` is a valid pack name (lower-case letters, digits, ``_``, ``-``)."""
    return _PACK_NAME.fullmatch(name) is not None


def is_file_name(name: str) -> bool:
    """Return whether `name` is a bare file name: no separator, no leading dot, plain ASCII."""
    return _FILE_NAME.fullmatch(name) is not None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a small TOML file.

    Raises
    ------
    PackCorrupt
        The file cannot be read, is too large, or is not TOML.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_TOML_BYTES + 1)
    except OSError as error:
        raise PackCorrupt(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_TOML_BYTES:
        raise PackCorrupt(f"{path}: larger than {MAX_TOML_BYTES} bytes, so not a manifest")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad TOML, absurd nesting
        raise PackCorrupt(f"{path}: not valid TOML: {error}") from error


def parse(cls: type[T], table: dict[str, Any], origin: Path) -> T:
    """Convert the root table of the file `origin` to the dataclass `cls`.

    Raises
    ------
    PackCorrupt
        A field is unknown, missing, or has a wrong type or value; the message names the file
        and the field.
    """
    try:
        return typing.cast(T, convert(cls, table, ""))
    except FieldError as error:
        raise PackCorrupt(f"{origin}: {error}") from error


def convert(kind: Any, value: Any, field: str) -> Any:
    """Check `value` against the annotation `kind` and convert it; `field` is its dotted path.

    Understands str, int, float, bool, tuples, ``dict[str, X]``, nested dataclasses and
    ``X | None`` (None stands for an absent field: TOML has no null). The only coercion is from
    a TOML integer to a float, and it is lossless.
    """
    if dataclasses.is_dataclass(kind):
        return _convert_table(kind, value, field)
    origin = typing.get_origin(kind)
    if origin is types.UnionType:
        (present,) = (member for member in typing.get_args(kind) if member is not types.NoneType)
        return convert(present, value, field)
    if origin is tuple:
        return _convert_array(typing.get_args(kind), value, field)
    if origin is dict:
        require(isinstance(value, dict), field, f"expected a table, got {_toml_name(value)}")
        item = typing.get_args(kind)[1]
        return types.MappingProxyType(
            {key: convert(item, entry, f"{field}.{key}") for key, entry in value.items()}
        )
    if kind is float and type(value) is int:
        require(abs(value) < 2**53, field, "number too large")
        value = float(value)
    # Not isinstance: True is an int in Python, but a mistake in a manifest.
    require(type(value) is kind, field, f"expected {_KINDS[kind]}, got {_toml_name(value)}")
    if kind is float:
        require(math.isfinite(value), field, "must be a finite number")
        return value + 0.0  # -0.0 becomes 0.0: equal numbers must hash to equal contracts
    if kind is str:
        # Texts are printed in a terminal: no control sequences, no line breaks.
        require(is_printable(value), field, "holds a line break or a control character")
    return value


def _convert_table(kind: Any, value: Any, field: str) -> Any:
    require(isinstance(value, dict), field or "the file", f"expected a table, got {value!r:.40}")
    prefix = f"{field}." if field else ""
    hints = _hints(kind)
    for key in value:
        require(key in hints, f"{prefix}{key}", "unknown field")
    arguments = {}
    for entry in dataclasses.fields(kind):
        if entry.name in value:
            path = f"{prefix}{entry.name}"
            arguments[entry.name] = convert(hints[entry.name], value[entry.name], path)
        else:
            optional = (
                entry.default is not dataclasses.MISSING
                or entry.default_factory is not dataclasses.MISSING
            )
            require(optional, f"{prefix}{entry.name}", "missing field")
    try:
        return kind(**arguments)
    except FieldError as error:  # from __post_init__, which does not know the path
        raise FieldError(f"{prefix}{error.field}", error.problem) from None


def _convert_array(kinds: tuple[Any, ...], value: Any, field: str) -> tuple[Any, ...]:
    require(isinstance(value, list), field, f"expected an array, got {_toml_name(value)}")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    require(len(value) == len(kinds), field, f"expected {len(kinds)} values, got {len(value)}")
    pairs = zip(kinds, value, strict=True)
    return tuple(convert(kind, item, f"{field}[{i}]") for i, (kind, item) in enumerate(pairs))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


_KINDS = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def _toml_name(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return _KINDS.get(type(value), "a date or time")
