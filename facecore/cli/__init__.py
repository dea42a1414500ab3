"""The ``facecore`` command.

Exit status: 0 same person (or success), 1 not the same person (or a check failed, or an attack
was found), 2 error.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence

from facecore import __version__
from facecore.cli import (
    bench,
    collections,
    compare,
    embed,
    evaluate,
    groups,
    quality,
    serve,
    weights,
)
from facecore.cli.common import ERROR, Commands, Parser, complain, discard
from facecore.errors import FacecoreError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    if sys.stderr is None:  # closed by the caller
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Escape names that the output encoding cannot represent.
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(arguments)
    try:
        answer, status, lines = args.run(args)
    except FacecoreError as error:
        complain(error.code, str(error))
        return ERROR
    except KeyboardInterrupt:
        complain("Interrupted", "interrupted before completion")
        return ERROR
    written = _print(json.dumps(answer) if args.json else "\n".join(lines))
    return int(status) if written else ERROR


def _print(text: str) -> bool:
    """Print the answer; return False if the output cannot be written."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader closed the pipe, as `head` does: no message
        pass
    except OSError as error:
        complain("OutputNotWritten", f"standard output cannot be written: {error.strerror}")
    else:
        return True
    discard(sys.stdout)
    return False


def _parser() -> Parser:
    parser = Parser(prog="facecore", description="On-device face comparison.")
    parser.add_argument("--version", action="version", version=f"facecore {__version__}")
    commands = Commands(parser, "commands", "COMMAND")
    for module in (compare, collections, embed, quality, evaluate, groups, serve, weights, bench):
        module.add_commands(commands)
    return parser
