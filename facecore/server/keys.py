"""The file of access keys: the id, the secret and the permissions of each key."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from facecore._utils.atomic_files import read_private
from facecore.errors import FacecoreError, InvalidParameter
from facecore.gallery.records import check_name
from facecore.operations import DOCUMENTED

__all__ = ["Key", "read_keys"]

FILE_BYTES = 1 << 20
SECRET_LENGTH = 16  # minimum, in characters: an intercepted signature allows guessing offline

HINT = "write one key per line: id, secret, options, separated by spaces; see docs/serving.md"

_LINE = re.compile(r"\s*([A-Za-z0-9._-]{1,128})\s+([!-~]{1,256})((?:\s+\S+)*)\s*")


@dataclass(frozen=True, slots=True)
class Key:
    """An access key and what it may do.

    Attributes
    ----------
    id, secret : str
    operations : frozenset of str, optional
        The operations that the key may call; None for all.
    groups : frozenset of str, optional
        The face groups that the key may read and change; None for all.
    until : datetime.date, optional
        The last day (UTC) on which the key is accepted.
    rate : float, optional
        Requests per second.
    """

    id: str
    secret: str = field(repr=False)
    operations: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    until: datetime.date | None = None
    rate: float | None = None

    def expired(self, now: float) -> bool:
        """Whether the last day is over at `now`, in seconds since 1970."""
        if self.until is None:
            return False
        return now >= (self.until - datetime.date(1970, 1, 1)).days * 86400 + 86400

    def allows(self, operation: str) -> bool:
        """Whether the key may call an operation."""
        return self.operations is None or operation in self.operations


def read_keys(path: str | os.PathLike[str]) -> Mapping[str, Key]:
    """Read the access keys, by id.

    A line holds an id (letters, digits, ``.``, ``_``, ``-``), a secret of at least 16 printable
    ASCII characters, and options: ``operations=A,B``, ``groups=a,b``, ``until=2026-12-31``,
    ``rate=5``.  Empty lines and lines that begin with ``#`` are comments.

    Parameters
    ----------
    path : str or PathLike

    Raises
    ------
    InvalidParameter
        The file cannot be read, others on this machine can read it, or a line is malformed.
    """
    file = Path(path)
    data = read_private(file, FILE_BYTES + 1, "the keys", HINT)
    if len(data) > FILE_BYTES:
        raise InvalidParameter(f"{file} has more than {FILE_BYTES} bytes", HINT)
    keys: dict[str, Key] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _read_line(line, f"{file}, line {number}")
        if key.id in keys:
            raise InvalidParameter(f"{file}, line {number}: the key {key.id} is repeated", HINT)
        keys[key.id] = key
    if not keys:
        raise InvalidParameter(f"{file} holds no key", HINT)
    return keys


def _read_line(line: str, place: str) -> Key:
    """Parse one key.  No message quotes the line or an option, which may be a misplaced secret."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise InvalidParameter(f"{place}: the line does not begin with an id and a secret", HINT)
    if len(match[2]) < SECRET_LENGTH:
        raise InvalidParameter(
            f"{place}: the secret has fewer than {SECRET_LENGTH} characters",
            'make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
        )
    options: dict[str, str] = {}
    for option in match[3].split():
        name, equals, value = option.partition("=")
        if name not in ("operations", "groups", "until", "rate") or not equals or name in options:
            raise InvalidParameter(
                f"{place}: an option is unknown or repeated",
                "use each of operations=, groups=, until= and rate= at most once",
            )
        options[name] = value
    try:
        return Key(
            match[1],
            match[2],
            operations=_operations(options.get("operations")),
            groups=_groups(options.get("groups")),
            until=_date(options.get("until")),
            rate=_rate(options.get("rate")),
        )
    except ValueError as error:
        raise InvalidParameter(f"{place}: {error}", HINT) from None


def _operations(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    names = frozenset(text.split(","))
    if not names <= DOCUMENTED.keys():
        raise ValueError("operations= names an operation that does not exist")
    return names


def _groups(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    names = frozenset(text.split(","))
    try:
        for name in names:
            check_name(name)
    except FacecoreError:
        raise ValueError("groups= holds an invalid group name") from None
    return names


def _date(text: str | None) -> datetime.date | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        raise ValueError("until= is not a date like 2026-12-31")
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ValueError("until= is not a valid date") from None


def _rate(text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", text, re.ASCII) or not float(text):
        raise ValueError("rate= is not a positive number of requests per second")
    return float(text)
