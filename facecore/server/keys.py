"""The file of access keys: who may send requests, and with which secret they are signed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from facecore.errors import InvalidParameter

__all__ = ["read_keys"]

FILE_BYTES = 1 << 20
SECRET_LENGTH = 16  # characters at least: a signature that was overheard can be tried offline
# Others must not read the secrets; the group may, as service managers hand out such files.
FORBIDDEN_MODE = stat.S_IRWXO | stat.S_IWGRP

HINT = "write one key per line: its id, a space, its secret; see docs/serving.md"


def read_keys(path: str | os.PathLike[str]) -> Mapping[str, str]:
    """Secrets by access key id.

    A line holds an id (letters, digits, ``.``, ``_``, ``-``), white space, and a secret of at
    least 16 printable ASCII characters.  Empty lines and those that begin with ``#`` count as
    comments.

    Parameters
    ----------
    path : str or PathLike

    Raises
    ------
    InvalidParameter
        The file cannot be read, others on this machine can read it, or a line has another form.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            state = os.fstat(stream.fileno())
            data = stream.read(FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(f"the keys in {file} cannot be read: {reason}", HINT) from error
    if os.name == "posix" and state.st_mode & FORBIDDEN_MODE:
        raise InvalidParameter(
            f"{file} has mode {stat.S_IMODE(state.st_mode):04o}: others can read the keys",
            f"chmod 600 {file}",
        )
    if len(data) > FILE_BYTES:
        raise InvalidParameter(f"{file} has more than {FILE_BYTES} bytes", HINT)
    keys: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.fullmatch(r"\s*([A-Za-z0-9._-]{1,128})\s+([!-~]{1,256})\s*", line)
        # The line itself is never part of a message: it holds a secret.
        if match is None:
            raise InvalidParameter(f"{file}, line {number}: no key and secret", HINT)
        if len(match[2]) < SECRET_LENGTH:
            raise InvalidParameter(
                f"{file}, line {number}: the secret has fewer than {SECRET_LENGTH} characters",
                'make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
            )
        if match[1] in keys:
            raise InvalidParameter(
                f"{file}, line {number}: the key {match[1]} is there twice", HINT
            )
        keys[match[1]] = match[2]
    if not keys:
        raise InvalidParameter(f"{file} holds no key", HINT)
    return keys
