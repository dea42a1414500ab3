"""``facecore calibrate`` and ``facecore evaluate``: calibration of scores and error rates."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facecore.cli.common import ERROR, MODELS, OK, PASSING, Answer, Commands, complain, name_of
from facecore.cli.common import engine as engine_of
from facecore.errors import FacecoreError, InvalidParameter

if TYPE_CHECKING:
    from facecore.evaluation.report import Report

_CALIBRATE = """\
Calibrate the scores on your own population.

DIR holds a folder of pictures per person.  At least 46 people are needed.  Rates too low
to measure with these people are extrapolated and marked.  Use the written file with
--calibration FILE or FaceEngine(calibration=FILE), and only with the same pack.

example:
  facecore calibrate staff-photos --out staff.toml
"""

_TEST_SETS = {
    "lfw": (
        "DIR",
        """\
Labeled Faces in the Wild: ten folds, 6,000 pairs, and all pairs of these pictures.

DIR holds pairs.txt and images/Name/Name_0001.jpg.
""",
    ),
    "pairs": (
        "FILE",
        """\
Pairs listed in a file.

Each line is a,b,label: two paths relative to the file, and 1 (same person) or 0.
""",
    ),
    "folder": (
        "DIR",
        """\
All pairs of a folder of people, and searches among them.

DIR holds a folder for each person; a picture directly in DIR counts as a separate person.
""",
    ),
    "london": (
        "DIR",
        """\
Face Research Lab London Set: neutral against smiling.

DIR holds NNN_neutral.jpg and NNN_smiling.jpg.
""",
    ),
}


_LIVENESS = """\
Error rates of liveness on your genuine pictures and attacks.

DIR holds genuine/ and one folder for each species of attack: attack-print/,
attack-tablet/ and so on.  Terms as in ISO/IEC 30107-3: APCER is the share of attacks of
one species that pass, BPCER the share of genuine pictures classified as attacks.

example:
  facecore evaluate liveness recaptures --report out
"""


def add_commands(commands: Commands) -> None:
    """Add the commands of this module."""
    calibrate = commands.add("calibrate", _calibrate, _CALIBRATE, MODELS)
    calibrate.add_argument("folder", metavar="DIR", type=Path, help="holds a folder per person")
    calibrate.add_argument(
        "--out", metavar="FILE", type=Path, help="file to write (default: next to the pack)"
    )
    calibrate.add_argument("--name", help="name of the dataset (default: the name of DIR)")
    calibrate.add_argument(
        "--face",
        choices=("largest", "central"),
        default="largest",
        help="which face of a picture to use (default: %(default)s)",
    )
    calibrate.add_argument(
        "--no-id-portraits", action="store_true", help="fit the table for photographs only"
    )

    sets = commands.group(
        "evaluate", "error rates on test sets and your pictures", title="test sets", metavar="SET"
    )
    for name, (place, text) in _TEST_SETS.items():
        test_set = sets.add(name, _evaluate, text, MODELS, PASSING)
        test_set.add_argument("place", metavar=place, type=Path, help=text.splitlines()[0])
        test_set.add_argument(
            "--report",
            metavar="OUT",
            type=Path,
            help="write an HTML report and JSON: a folder, or NAME.html",
        )
        test_set.add_argument(
            "--progress",
            action=argparse.BooleanOptionalAction,
            help="show a progress bar (default: on a terminal)",
        )
        if name in ("lfw", "folder"):
            test_set.add_argument(
                "--labels", metavar="CSV", type=Path, help="image,group lines, for rates by group"
            )
        if name == "folder":
            test_set.add_argument(
                "--names", choices=["utkface"], help="read groups from file names AGE_GENDER_RACE_*"
            )
        test_set.set_defaults(test_set=name)
    liveness = sets.add("liveness", _evaluate_liveness, _LIVENESS, MODELS)
    liveness.add_argument("place", metavar="DIR", type=Path, help="holds genuine/ and attack-NAME/")
    liveness.add_argument(
        "--report", metavar="OUT", type=Path, help="write HTML and JSON: a folder, or NAME.html"
    )


def _calibrate(args: argparse.Namespace) -> Answer:
    from facecore.evaluation import calibrate
    from facecore.models.calibration_file import check_writable

    pictures = calibrate.find_pictures(args.folder)
    engine = engine_of(args)
    path = args.out or calibrate.default_file(engine)
    check_writable(path)
    result = calibrate.measure(
        engine,
        pictures,
        dataset=args.name or name_of(args.folder),
        face=args.face,
        id_portraits=not args.no_id_portraits,
        progress=sys.stderr.isatty(),
    )
    calibrate.save(path, engine, result)
    answer = {
        "file": str(path),
        "pack": engine.pack.name,
        "contract": engine.contract_id,
        **result.as_dict(),
    }
    return answer, OK, [*result.lines(), f"written to {path}"]


def _evaluate(args: argparse.Namespace) -> Answer:
    from facecore.evaluation import protocols

    if args.test_set == "pairs":
        if not os.path.isfile(args.place):
            raise InvalidParameter(f"{args.place} is not a file")
    elif not os.path.isdir(args.place):
        raise InvalidParameter(f"{args.place} is not a folder")
    if args.report:  # report a missing package before the evaluation, not after it
        from facecore._utils import extras

        extras.require_extra("matplotlib.figure")
        extras.require_extra("sklearn.metrics")
        _check_report(args.report)
    engine = engine_of(args)
    _ = engine.threshold  # raises NotCalibrated before the evaluation starts
    options = {name: getattr(args, name) for name in ("labels", "names") if hasattr(args, name)}
    progress = sys.stderr.isatty() if args.progress is None else args.progress
    protocol = getattr(protocols, args.test_set)
    result = protocol(engine, args.place, progress=progress, **options)
    answer = {"pack": engine.pack.name, "contract": engine.contract_id, **result.as_dict()}
    lines, status = result.lines(), OK
    if args.report:
        from facecore.evaluation.report import write_report

        title = f"facecore evaluate {args.test_set}: {engine.pack.name}"
        source = str(args.place.resolve())
        status = _report(
            lambda: write_report(result, engine, args.report, title=title, source=source),
            answer,
            lines,
        )
    # A file name need not be UTF-8; the output is.
    return answer, status, [line.encode("utf-8", "backslashreplace").decode() for line in lines]


def _evaluate_liveness(args: argparse.Namespace) -> Answer:
    from facecore.evaluation.own_attacks import evaluate_liveness, write_liveness_report

    if not os.path.isdir(args.place):
        raise InvalidParameter(f"{args.place} is not a folder")
    if args.report:
        _check_report(args.report)
    engine = engine_of(args)
    result = evaluate_liveness(engine, args.place)
    answer, lines = {"pack": engine.pack.name, **result.as_dict()}, result.lines()
    status = OK
    if args.report:
        status = _report(lambda: write_liveness_report(result, engine, args.report), answer, lines)
    return answer, status, lines


def _check_report(out: Path) -> None:
    """Check before the evaluation, which takes long, that its report can be written."""
    from facecore._utils.atomic_files import check_writable, make_folder
    from facecore.evaluation.report import report_paths

    wanted = report_paths(out)
    make_folder(wanted.html.parent)
    check_writable(wanted.html)
    check_writable(wanted.json)


def _report(write: Callable[[], Report], answer: dict[str, Any], lines: list[str]) -> int:
    """Write the report, and add its path to the answer; return the exit status."""
    try:
        written = write()
    except Exception as error:  # the results took long and are valid: print them
        if not isinstance(error, FacecoreError):
            hint = "this is a fault of facecore: please report it with this message"
            error = FacecoreError(f"the report cannot be made: {error!r:.400}", hint)
        complain(error.code, str(error))
        answer["report"] = None
        return ERROR
    answer["report"] = {"html": str(written.html), "json": str(written.json)}
    lines.append(f"report              {written.html}")
    return OK
