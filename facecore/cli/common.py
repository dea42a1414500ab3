"""Shared parts of the commands: parser, options, engine and gallery."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from facecore._utils.text import is_printable

if TYPE_CHECKING:
    from facecore import FaceEngine, Gallery

OK, NO, ERROR = 0, 1, 2

Answer = tuple[Mapping[str, Any], int, Sequence[str]]
"""The ``--json`` object, the exit status, and the lines printed without ``--json``."""


def name_of(folder: Path) -> str:
    """Return the name of a folder of pictures for a manifest: printable, never empty."""
    whole = folder.resolve()
    name = whole.name.strip() or str(whole)
    return "".join(character if is_printable(character) else "?" for character in name)


def crowd(path: object, others: int, hint: str = "") -> list[str]:
    """Return a line if a picture shows other faces in addition to the largest."""
    text = f"{others + 1} faces in {path}; the largest was used"
    return [f"{text} ({hint})" if hint else text] if others else []


def complain(code: str, text: str) -> None:
    """Print an error to standard error, in one line; without a reader, the exit status remains."""
    try:
        print(f"facecore: {code}: {' '.join(text.split())}", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Discard what a stream could not write: Python would fail again when it exits."""
    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class Parser(argparse.ArgumentParser):
    """Prints the full help of a command after a usage error, not only its usage line."""

    def error(self, message: str) -> NoReturn:
        """Print the help and the error, and exit."""
        self.print_help(sys.stderr)
        complain("InvalidParameter", message)
        raise SystemExit(ERROR)


OUTPUT = argparse.ArgumentParser(add_help=False)
OUTPUT.add_argument("--json", action="store_true", help="print one JSON object, nothing else")

MODELS = argparse.ArgumentParser(add_help=False)
MODELS.add_argument(
    "--pack", help="name or folder of a model pack (default: $FACECORE_PACK, or compact)"
)
MODELS.add_argument("--threads", type=int, help="threads per model (default: half the processors)")
MODELS.add_argument(
    "--provider",
    action="append",
    metavar="NAME",
    help="CPU, CUDA, TensorRT, OpenVINO or CoreML, by precedence; may be repeated (default: CPU)",
)
MODELS.add_argument(
    "--min-recognizability",
    metavar="N",
    type=float,
    help="minimum recognisability, 0..100; 0 accepts all faces (default: the pack's limit)",
)

PASSING = argparse.ArgumentParser(add_help=False)
PASSING.add_argument("--threshold", type=float, help="lowest score that passes (default: 80)")
PASSING.add_argument(
    "--calibration", metavar="FILE", help="calibration table, from: facecore calibrate"
)

GALLERY = argparse.ArgumentParser(add_help=False)
GALLERY.add_argument(
    "--gallery",
    metavar="PLACE",
    help="folder of the gallery, or milvus+http://host:19530 (default: $FACECORE_GALLERY)",
)


def add_key_file(command: argparse._ActionsContainer) -> None:
    """Add ``--gallery-key-file``: the key of an encrypted gallery."""
    command.add_argument(
        "--gallery-key-file",
        metavar="FILE",
        type=Path,
        help="file with the gallery's key (default: the key in $FACECORE_GALLERY_KEY)",
    )


add_key_file(GALLERY)


class Commands:
    """A list of commands: the top level, or the subcommands of a command such as ``weights``."""

    def __init__(self, parser: argparse.ArgumentParser, title: str, metavar: str) -> None:
        self._commands: Any = parser.add_subparsers(title=title, required=True, metavar=metavar)

    def add(
        self,
        name: str,
        run: Callable[[argparse.Namespace], Answer],
        text: str,
        *parents: argparse.ArgumentParser,
    ) -> argparse.ArgumentParser:
        """Add a command; the first line of its text is its entry in the list."""
        command: argparse.ArgumentParser = self._commands.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            parents=[OUTPUT, *parents],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    def group(
        self, name: str, text: str, *, title: str = "commands", metavar: str = "COMMAND"
    ) -> Commands:
        """Add a command with subcommands."""
        return Commands(self._commands.add_parser(name, help=text), title, metavar)


def add_if_many(command: argparse._ActionsContainer) -> None:
    """Add ``--if-many``: how to treat a picture of several people."""
    command.add_argument(
        "--if-many",
        choices=("largest", "refuse"),
        default="largest",
        help="use the largest face of several, or refuse the picture (default: %(default)s)",
    )


def engine(args: argparse.Namespace, *, isolate_decoding: bool = False) -> FaceEngine:
    """Create the engine from the options."""
    from facecore import FaceEngine

    threshold = getattr(args, "threshold", None)
    return FaceEngine(
        args.pack or os.environ.get("FACECORE_PACK") or "compact",
        args.provider,
        args.threads,
        threshold=threshold,
        calibration=getattr(args, "calibration", None),
        isolate_decoding=isolate_decoding,
        min_recognizability=getattr(args, "min_recognizability", None),
    )


def gallery_key(args: argparse.Namespace) -> bytes | None:
    """Read the gallery's key, if one is given."""
    from facecore.gallery.keys import as_key, read_key

    if args.gallery_key_file is not None:
        return read_key(args.gallery_key_file)
    key = os.environ.get("FACECORE_GALLERY_KEY")
    return as_key(key) if key else None


def place_of(args: argparse.Namespace) -> str:
    """Return the gallery's folder or address."""
    from facecore.errors import InvalidParameter

    place: str | None = args.gallery or os.environ.get("FACECORE_GALLERY")
    if not place:
        raise InvalidParameter("no gallery was named", "give --gallery, or set FACECORE_GALLERY")
    return place


def gallery(args: argparse.Namespace, *, read_only: bool = False) -> Gallery:
    """Open the gallery from the options."""
    from facecore import Gallery
    from facecore.gallery.milvus.client import is_milvus

    place, key = place_of(args), gallery_key(args)
    return Gallery(
        place,
        engine(args),
        # Building an HNSW index does not pay off for one command; Milvus has its own index.
        index="auto" if is_milvus(place) else "exact",
        read_only=read_only,
        progress=sys.stderr.isatty(),
        key=key,
    )
