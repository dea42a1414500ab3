"""``facecore weights``: the model packs of this machine."""

from __future__ import annotations

import argparse
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from facecore.cli.common import NO, OK, Answer, Commands, name_of
from facecore.errors import PackNotFound

if TYPE_CHECKING:
    from facecore.models.specs import CalibrationSpec

_ADOPT = """\
Create a pack from your ONNX files: InsightFace, OpenCV Zoo and others.

The tensors of a file determine its role; published files are identified by SHA-256.
The files stay in place.  The command uses --people to find the preprocessing of an unknown
embedder and, with 46 people or more, to calibrate the scores.  Without a calibration, the pack of
an unmeasured embedder gives similarities and no scores.

example:
  facecore weights adopt ~/.insightface/models/buffalo_l --people staff-photos
"""


_RECOGNIZABILITY = """\
Let an adopted pack refuse faces that its embedder cannot read.

An embedder maps strangers' pictures with the same defect to similar vectors.  The command blurs,
darkens, covers and turns the pictures of DIR at random, and trains a small network to detect the
vectors of unreadable faces.  Its limit refuses 0.4 % of ordinary pictures.  The command writes
the network and the limit into the pack's manifest.
"""


def add_commands(commands: Commands) -> None:
    """Add the commands of this module."""
    verbs = commands.group("weights", "model packs: list, pull, verify, adopt, remove")
    verbs.add("list", _list, "List every pack with its licences, caveats and calibration.")
    pull = verbs.add("pull", _pull, "Download a pack into the cache.")
    pull.add_argument("name", metavar="NAME", help="a name from: facecore weights list")
    verify = verbs.add("verify", _verify, "Check the SHA-256 of the files of installed packs.")
    verify.add_argument("name", metavar="NAME", nargs="?", help="one pack (default: all)")
    adopt = verbs.add("adopt", _adopt, _ADOPT)
    adopt.add_argument(
        "sources", metavar="PATH", nargs="+", type=Path, help="ONNX files, or a folder of them"
    )
    adopt.add_argument("--name", help="pack name (default: name of the folder or embedder)")
    adopt.add_argument(
        "--people", metavar="DIR", type=Path, help="holds a folder of pictures per person"
    )
    adopt.add_argument(
        "--face",
        choices=("largest", "central"),
        default="largest",
        help="which face of a picture to use (default: %(default)s)",
    )
    adopt.add_argument(
        "--detector", metavar="PACK", help="use the detector of a pack, such as compact, or a file"
    )
    adopt.add_argument(
        "--channels", choices=("RGB", "BGR"), help="channel order of the embedder, if known"
    )
    adopt.add_argument(
        "--normalisation",
        metavar="NAME",
        help="mean/std of the embedder, if known: 127.5/127.5, 127.5/128, 0/1, 0/255 or imagenet",
    )
    known = verbs.add("recognizability", _recognizability, _RECOGNIZABILITY)
    known.add_argument("name", metavar="NAME", help="an adopted pack")
    known.add_argument(
        "--faces",
        metavar="DIR",
        type=Path,
        required=True,
        help="holds a folder of pictures per person, 100 people or more",
    )
    remove = verbs.add("remove", _remove, "Remove an adopted or pulled pack from the cache.")
    remove.add_argument("name", metavar="NAME", help="a name from: facecore weights list")


def _list(args: argparse.Namespace) -> Answer:
    from facecore.models.listing import list_packs

    answer, lines = {}, []
    for pack in list_packs():
        models = dict(pack.manifest.models) if pack.manifest else {}
        table = pack.manifest.embedder.calibration if pack.manifest else None
        answer[pack.name] = {
            "summary": pack.summary,
            "shipped": pack.shipped,
            "adopted": pack.adopted,
            "installed": pack.installed,
            "folder": str(pack.folder) if pack.folder else None,
            "bytes": pack.size,
            "problem": pack.problem,
            "calibration": table and asdict(table),
            "models": {
                role: {
                    "file": model.file,
                    "license": model.license,
                    "source": model.source,
                    "training_data": model.training_data,
                    "caveat": model.caveat,
                }
                for role, model in models.items()
            },
        }
        state = f"installed in {pack.folder}" if pack.installed else "not installed"
        kind = ", adopted" if pack.adopted else ""
        lines.append(f"{pack.name}  {pack.size / 1e6:.1f} MB{kind}, {state}")
        lines.append(f"  {pack.problem or pack.summary}")
        for role, model in models.items():
            lines.append(f"  {role}: {model.file}, licence {model.license}")
            for label in ("source", "training_data", "caveat"):
                if text := getattr(model, label):
                    lines += _wrapped(f"{label.replace('_', ' ')}: {text}", "    ")
        if models:
            lines += _wrapped(_calibration(table), "  ")
        if not (pack.installed or pack.shipped or pack.adopted):
            lines.append(f"  to install: facecore weights pull {pack.name}")
    return answer, OK, lines


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        width=96,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _calibration(table: CalibrationSpec | None) -> str:
    """Describe the calibration in one sentence."""
    if table is None:
        return "not calibrated: it gives similarities and no scores"
    knots = ", ".join(
        f"{knot.score:g} at {knot.similarity:.3f}" + ("" if knot.measured else " (extrapolated)")
        for knot in table.knots
        if knot.score >= 70
    )
    return (
        f"calibrated on {table.identities:,} people, {table.impostor:,} pairs of different people "
        f"({table.dataset}): score {knots}"
    )


def _pull(args: argparse.Namespace) -> Answer:
    from facecore.models.pull import pull

    result = pull(args.name, progress=sys.stderr.isatty())
    came = f"{result.downloaded / 1e6:.1f} MB pulled" if result.downloaded else "already installed"
    answer = {
        "name": result.name,
        "folder": str(result.folder),
        "downloaded_bytes": result.downloaded,
    }
    return answer, OK, [f"{result.name}: {came}, verified, in {result.folder}"]


def _verify(args: argparse.Namespace) -> Answer:
    from facecore.models.listing import verify

    checks = verify(args.name)
    # A missing pack counts as a failure only if it was named.
    wrong = [check for check in checks if not check.ok and (check.installed or args.name)]
    lines = []
    for check in checks:
        state = "ok" if check.ok else check.problem if check.installed else "not installed"
        lines.append(f"{check.pack}/{check.file}: {state}")
        if check in wrong and check.hint:
            lines.append(f"  {check.hint}")
    answer = {
        "ok": not wrong,
        "files": [
            {
                "pack": check.pack,
                "file": check.file,
                "installed": check.installed,
                "ok": check.ok,
                "problem": check.problem,
            }
            for check in checks
        ],
    }
    return answer, NO if wrong else OK, lines


def _adopt(args: argparse.Namespace) -> Answer:
    from facecore import demo
    from facecore.evaluation.adoption import adopt

    pictures = None
    if args.people is None:
        shown = demo.pictures()
        pictures = {name: shown[name] for name in ("astronaut", "hopper")}
    sources = args.sources[0] if len(args.sources) == 1 else args.sources
    made = adopt(
        sources,
        name=args.name,
        people=args.people,
        detector=args.detector,
        channels=args.channels,
        normalisation=args.normalisation,
        face=args.face,
        pictures=pictures,
        progress=sys.stderr.isatty(),
    )
    lines = made.lines()
    if made.manifest.embedder.calibration is not None:  # else a note names facecore calibrate
        lines.append(f"to use it: facecore compare A B --pack {made.name}")
    return made.as_dict(), OK, lines


def _recognizability(args: argparse.Namespace) -> Answer:
    from facecore import FaceEngine
    from facecore._utils.atomic_files import check_writable
    from facecore.evaluation.calibrate import find_pictures
    from facecore.evaluation.recognizability import measure, write_section
    from facecore.evaluation.spoiled_crops import collect
    from facecore.models.adopt import adopted_packs
    from facecore.models.manifest import MANIFEST_NAME

    if args.name not in adopted_packs():
        raise PackNotFound(
            f"there is no adopted pack {args.name!r:.80}", "list the packs: facecore weights list"
        )
    pictures, dataset = find_pictures(args.faces), name_of(args.faces)
    engine = FaceEngine(args.name, threads=1, min_recognizability=0)
    manifest = engine.pack.folder / MANIFEST_NAME
    check_writable(manifest)
    made = measure(args.name, collect(engine, pictures), dataset)
    write_section(manifest, made.spec)
    answer = {"name": args.name, "limit": made.spec.limit, "refused": made.spec.refused}
    return answer, OK, [*made.lines]


def _remove(args: argparse.Namespace) -> Answer:
    from facecore.models.adopt import remove

    folder = remove(args.name)
    return {"name": args.name, "folder": str(folder)}, OK, [f"{args.name}: removed {folder}"]
