"""The ``facecore`` command.

Exit status: 0 same person (or the command did its work), 1 not the same person (or a check
failed, or an attack was found), 2 error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from facecore import __version__
from facecore.cli import bench, compare, evaluate, groups, quality, serve, weights
from facecore.cli.common import ERROR, Commands, Parser, complain
from facecore.errors import FacecoreError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    args = _parser().parse_args(arguments)
    try:
        answer, status, lines = args.run(args)
    except FacecoreError as error:
        complain(error.code, str(error))
        return ERROR
    except KeyboardInterrupt:
        complain("Interrupted", "stopped before the end")
        return ERROR
    print(json.dumps(answer) if args.json else "\n".join(lines))
    return int(status)


def _parser() -> Parser:
    parser = Parser(prog="facecore", description="On-device face comparison.")
    parser.add_argument("--version", action="version", version=f"facecore {__version__}")
    commands = Commands(parser, "commands", "COMMAND")
    for module in (compare, quality, evaluate, groups, serve, weights, bench):
        module.add_commands(commands)
    return parser
