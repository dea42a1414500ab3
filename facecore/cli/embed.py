"""``facecore embed``: the vectors of a whole collection in one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facecore.cli.common import MODELS, NO, OK, Answer, Commands
from facecore.cli.common import engine as engine_of
from facecore.errors import InvalidParameter

_EMBED = """\
Write the vectors of all faces of many pictures into a Parquet file.

PICTURES is a folder, or a text file with one path in each line.  A picture without a
usable face gets a row with the code of its error.  After an interruption, by Ctrl-C or a crash,
run the same command again to resume.  The file holds the templates, unencrypted.

With --ray, the workers of a Ray cluster do the work: auto is a cluster of this machine.

exit status: 0 there is a face, 1 there is none, 2 error

examples:
  facecore embed applicants --out applicants.parquet
  facecore embed shard-17.txt --out shard-17.parquet --ray 10.0.0.1:6379
"""


def add_commands(commands: Commands) -> None:
    """Add the command of this module."""
    embed = commands.add("embed", _embed, _EMBED, MODELS)
    embed.add_argument("source", metavar="PICTURES", type=Path, help="folder, or list of paths")
    embed.add_argument(
        "--out", metavar="PARQUET", type=Path, required=True, help="file to write, or to replace"
    )
    embed.add_argument("--quality", action="store_true", help="add the quality of each face")
    embed.add_argument("--ray", metavar="ADDRESS", help="Ray cluster: auto, or its address")
    embed.add_argument(
        "--workers", type=int, help="Ray workers (default: one for each machine of the cluster)"
    )


def _embed(args: argparse.Namespace) -> Answer:
    from facecore.collections import embed_pictures

    if args.ray and (args.provider or args.threads):
        raise InvalidParameter("Ray workers do not use --provider and --threads", "leave both out")
    if args.workers and not args.ray:
        raise InvalidParameter("--workers needs --ray", "add --ray, or leave out --workers")
    result = embed_pictures(
        engine_of(args),
        args.source,
        args.out,
        quality=args.quality,
        ray=args.ray,
        workers=args.workers,
        progress=sys.stderr.isatty(),
    )
    rate = (result.pictures - result.resumed) / result.seconds
    lines = [
        f"{result.faces:,} faces of {result.pictures:,} pictures written to {args.out}",
        f"{result.seconds:.0f} s ({rate:.0f} pictures a second)",
    ]
    if result.resumed:
        lines.append(f"{result.resumed:,} pictures were already embedded")
    lines += [f"{count:,} refused: {code}" for code, count in result.refused.items()]
    return {"file": str(args.out), **result.as_dict()}, OK if result.faces else NO, lines
