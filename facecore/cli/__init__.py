"""The ``facecore`` command.

Exit status: 0 same person (or the command did its work), 1 not the same person (or a check
failed, or an attack was found), 2 error.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence

from facecore import __version__
from facecore.cli import bench, collections, compare, evaluate, groups, quality, serve, weights
from facecore.cli.common import ERROR, Commands, Parser, complain
from facecore.errors import FacecoreError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the output's encoding lacks is escaped, and no error.
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(arguments)
    try:
        answer, status, lines = args.run(args)
    except FacecoreError as error:
        complain(error.code, str(error))
        return ERROR
    except KeyboardInterrupt:
        complain("Interrupted", "stopped before the end")
        return ERROR
    written = _print(json.dumps(answer) if args.json else "\n".join(lines))
    return int(status) if written else ERROR


def _print(text: str) -> bool:
    """Print the answer; False where it did not arrive."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has gone, as `head` does: nobody is left to tell
        pass
    except OSError as error:
        complain("OutputNotWritten", f"standard output cannot be written: {error.strerror}")
    else:
        return True
    # Python would flush at its end what could not be written.
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)
    return False


def _parser() -> Parser:
    parser = Parser(prog="facecore", description="On-device face comparison.")
    parser.add_argument("--version", action="version", version=f"facecore {__version__}")
    commands = Commands(parser, "commands", "COMMAND")
    for module in (compare, collections, quality, evaluate, groups, serve, weights, bench):
        module.add_commands(commands)
    return parser
