"""The ``facecore`` command.

Exit status: 0 same person (or the command did its work), 1 not the same person (or a check
failed), 2 error.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from facecore import __version__
from facecore.errors import FacecoreError, InvalidParameter

if TYPE_CHECKING:
    from facecore import Comparison, Face, FaceEngine
    from facecore.matching.calibration import Calibration

OK, NO, ERROR = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    args = _parser().parse_args(arguments)
    try:
        answer, status, lines = args.run(args)
    except FacecoreError as error:
        _complain(error.code, str(error))
        return ERROR
    except KeyboardInterrupt:
        _complain("Interrupted", "stopped before the end")
        return ERROR
    print(json.dumps(answer) if args.json else "\n".join(lines))
    return int(status)


def _complain(code: str, text: str) -> None:
    print(f"facecore: {code}: {' '.join(text.split())}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Prints the whole help of a command that was called wrongly, not only its usage line."""

    def error(self, message: str) -> NoReturn:
        self.print_help(sys.stderr)
        _complain("InvalidParameter", message)
        raise SystemExit(ERROR)


Answer = tuple[Mapping[str, Any], int, Sequence[str]]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="facecore", description="On-device face comparison.")
    parser.add_argument("--version", action="version", version=f"facecore {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    models = argparse.ArgumentParser(add_help=False)
    models.add_argument(
        "--pack", default="compact", help="name or folder of a model pack (default: %(default)s)"
    )
    models.add_argument("--threads", type=int, help="threads per model (default: all processors)")
    models.add_argument(
        "--provider", action="append", help="ONNX Runtime execution provider; may be repeated"
    )
    passing = argparse.ArgumentParser(add_help=False)
    passing.add_argument(
        "--threshold", type=float, help="score from which a comparison passes (default: 80)"
    )
    passing.add_argument(
        "--calibration", metavar="FILE", help="a table of your own, from: facecore calibrate"
    )

    def command(
        name: str,
        run: Callable[[argparse.Namespace], Answer],
        text: str,
        *parents: argparse.ArgumentParser,
        to: Any = commands,
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = to.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            parents=[output, *parents],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    two = command("compare", _compare, _COMPARE, models, passing)
    two.add_argument("a", metavar="A", help="first picture: JPEG, PNG, WebP, BMP or TIFF")
    two.add_argument("b", metavar="B", help="second picture")
    two.add_argument(
        "--id-portrait", action="store_true", help="one is the portrait of an ID card's chip"
    )

    chain = "Compare three pictures: A with B and B with C."
    three = command("cross-compare", _cross_compare, chain, models, passing)
    for name in "abc":
        three.add_argument(name, metavar=name.upper(), help="picture")
    three.add_argument(
        "--mode", choices=("chain", "loop"), default="chain", help="loop: also C with A"
    )

    detect = command("detect", _detect, "Find the faces of a picture, largest first.", models)
    detect.add_argument("image", metavar="IMG", help="picture")
    detect.add_argument("--draw", metavar="OUT", type=Path, help="write the picture with its faces")

    demo = command("demo", _demo, "Compare faces that come with the installed packages.", models)
    demo.add_argument("--draw", metavar="OUT", type=Path, help="write the pictures side by side")

    calibrate = command("calibrate", _calibrate, _CALIBRATE, models)
    calibrate.add_argument("folder", metavar="DIR", type=Path, help="holds a folder per person")
    calibrate.add_argument("--out", metavar="FILE", type=Path, help="default: beside the pack")
    calibrate.add_argument("--name", help="what was measured (default: the name of DIR)")
    calibrate.add_argument(
        "--face",
        choices=("largest", "central"),
        default="largest",
        help="which face stands for a picture (default: %(default)s)",
    )
    calibrate.add_argument(
        "--no-id-portraits", action="store_true", help="fit the table for photographs only"
    )

    weights = commands.add_parser("weights", help="model packs: list, pull, verify")
    verbs = weights.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command("list", _weights_list, "Every known pack with its licences and caveats.", to=verbs)
    pull = command("pull", _weights_pull, "Download a pack into the cache.", to=verbs)
    pull.add_argument("name", metavar="NAME", help="a name from: facecore weights list")
    verify = command("verify", _weights_verify, "Hash the files of installed packs.", to=verbs)
    verify.add_argument("name", metavar="NAME", nargs="?", help="one pack (default: all)")

    evaluate = commands.add_parser("evaluate", help="error rates on test sets and own pictures")
    sets = evaluate.add_subparsers(title="test sets", required=True, metavar="SET")
    for name, (place, text) in _TEST_SETS.items():
        test_set = command(name, _evaluate, text, models, passing, to=sets)
        test_set.add_argument("place", metavar=place, type=Path, help=text.splitlines()[0])
        test_set.add_argument(
            "--report",
            metavar="OUT",
            type=Path,
            help="write a page and JSON: a folder, or NAME.html",
        )
        test_set.add_argument(
            "--progress",
            action=argparse.BooleanOptionalAction,
            help="show a progress bar (default: on a terminal)",
        )
        if name in ("lfw", "folder"):
            test_set.add_argument(
                "--labels", metavar="CSV", type=Path, help="image,group lines: rates by group"
            )
        if name == "folder":
            test_set.add_argument(
                "--names", choices=["utkface"], help="take groups from names: AGE_GENDER_RACE_*"
            )
        test_set.set_defaults(test_set=name)
    return parser


_COMPARE = """\
Do two pictures show the same person?

The largest face of each is compared.  The score runs from 0 to 100; of pairs of
different people 1 % reach 70, 0.1 % reach 80 and 0.01 % reach 90.

exit status: 0 same person, 1 not, 2 error

example:
  facecore compare passport.jpg selfie.jpg --json
"""

_CALIBRATE = """\
Measure what a score means for your own population.

DIR holds a folder of pictures per person; at least 46 people are needed, and rates
that so few cannot show are extrapolated and marked so.  The file that is written is
used with --calibration FILE, or FaceEngine(calibration=FILE), and with no other pack.

example:
  facecore calibrate staff-photos --out staff.toml
"""

_TEST_SETS = {
    "lfw": (
        "DIR",
        """\
Labeled Faces in the Wild: ten folds, 6,000 pairs, and all pairs of their pictures.

DIR holds pairs.txt and images/Name/Name_0001.jpg.
""",
    ),
    "pairs": (
        "FILE",
        """\
The pairs of a file.

Each line is a,b,label: two pictures, relative to the file, and 1 (same person) or 0.
""",
    ),
    "folder": (
        "DIR",
        """\
All pairs of a folder of people, and searches among them.

DIR holds a folder for each person; a picture right inside it is a person of its own.
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


def _engine(args: argparse.Namespace) -> FaceEngine:
    from facecore import FaceEngine

    threshold = getattr(args, "threshold", None)
    return FaceEngine(
        args.pack,
        args.provider,
        args.threads,
        threshold=threshold,
        calibration=getattr(args, "calibration", None),
    )


def _face(face: Face) -> dict[str, Any]:
    return {
        "box": [round(float(v), 2) for v in face.box],
        "landmarks": [[round(float(v), 2) for v in point] for point in face.landmarks],
        "confidence": round(face.confidence, 4),
    }


def _comparison(result: Comparison) -> dict[str, Any]:
    return {
        "passed": result.passed,
        "score": result.score,
        "similarity": result.similarity,
        "threshold": result.threshold,
        "far_thresholds": {str(far): score for far, score in result.far_thresholds.items()},
        "faces": [_face(face) for face in result.faces],
    }


def _verdict(result: Comparison, calibration: Calibration) -> str:
    """One line: the decision, and how often strangers score as high."""
    far = float(calibration.far(result.score))
    about = "fewer than" if calibration.is_extrapolated(result.score) else "about"
    rarest = max(far, calibration.rarest_measured.far)
    strangers = f"{about} 1 in {1 / rarest:,.0f}" if rarest < 0.5 else "at least 1 in 2"
    word = "same person" if result.passed else "NOT the same person"
    return (
        f"{word}: score {result.score:.1f} (threshold {result.threshold:g}, "
        f"similarity {result.similarity:.3f}); {strangers} pairs of strangers score as high"
    )


def _compare(args: argparse.Namespace) -> Answer:
    engine = _engine(args)
    result = engine.compare(args.a, args.b, id_portrait=args.id_portrait)
    table = engine.id_portrait_calibration if args.id_portrait else engine.calibration
    lines = [_verdict(result, table or engine.calibration)]
    return _comparison(result), OK if result.passed else NO, lines


def _cross_compare(args: argparse.Namespace) -> Answer:
    engine = _engine(args)
    result = engine.cross_compare(args.a, args.b, args.c, mode=args.mode)
    pairs = {"ab": result.ab, "bc": result.bc, "ca": result.ca}
    made = {name: pair for name, pair in pairs.items() if pair is not None}
    answer = {
        "passed": result.passed,
        **{name: pair and _comparison(pair) for name, pair in pairs.items()},
    }
    lines = [
        f"{name[0].upper()}-{name[1].upper()}  {_verdict(pair, engine.calibration)}"
        for name, pair in made.items()
    ]
    return answer, OK if result.passed else NO, lines


def _detect(args: argparse.Namespace) -> Answer:
    from facecore import images

    engine = _engine(args)
    pixels = images.load(args.image)
    faces = engine.detect(pixels)
    lines = [
        f"{face.size:.0f} px at x {face.box[0]:.0f}..{face.box[2]:.0f}, "
        f"y {face.box[1]:.0f}..{face.box[3]:.0f}, confidence {face.confidence:.2f}"
        for face in faces
    ]
    if args.draw:
        from facecore.drawing import draw_faces, write_image

        write_image(args.draw, draw_faces(pixels, faces))
        lines.append(f"drawn into {args.draw}")
    lines.insert(0, f"{len(faces)} face{'s' * (len(faces) != 1)}")
    height, width = pixels.shape[:2]
    return {"width": width, "height": height, "faces": [_face(face) for face in faces]}, OK, lines


def _demo(args: argparse.Namespace) -> Answer:
    from facecore import demo

    pictures = demo.pictures()
    engine = _engine(args)
    results = {
        name: engine.compare(pictures[first], pictures[second])
        for name, (first, second) in demo.PAIRS.items()
    }
    lines = [f"{name}:\n  {_verdict(r, engine.calibration)}" for name, r in results.items()]
    if args.draw:
        from facecore.drawing import write_image

        write_image(args.draw, demo.draw(pictures, results))
        lines.append(f"drawn into {args.draw}")
    return {name: _comparison(result) for name, result in results.items()}, OK, lines


def _weights_list(args: argparse.Namespace) -> Answer:
    from facecore.models import known_packs

    answer, lines = {}, []
    for pack in known_packs():
        models = dict(pack.manifest.models) if pack.manifest else {}
        answer[pack.name] = {
            "summary": pack.summary,
            "shipped": pack.shipped,
            "installed": pack.installed,
            "folder": str(pack.folder) if pack.folder else None,
            "bytes": pack.size,
            "problem": pack.problem,
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
        lines.append(f"{pack.name}  {pack.size / 1e6:.1f} MB, {state}")
        lines.append(f"  {pack.problem or pack.summary}")
        for role, model in models.items():
            lines.append(f"  {role}: {model.file}, licence {model.license}")
            for label in ("source", "training_data", "caveat"):
                if text := getattr(model, label):
                    lines += textwrap.wrap(
                        f"{label.replace('_', ' ')}: {text}",
                        width=96,
                        initial_indent="    ",
                        subsequent_indent="      ",
                        break_long_words=False,
                        break_on_hyphens=False,
                    )
        if not pack.installed and not pack.shipped:
            lines.append(f"  to install: facecore weights pull {pack.name}")
    return answer, OK, lines


def _weights_pull(args: argparse.Namespace) -> Answer:
    from facecore.models import pull

    result = pull(args.name, progress=sys.stderr.isatty())
    came = f"{result.downloaded / 1e6:.1f} MB pulled" if result.downloaded else "already installed"
    answer = {
        "name": result.name,
        "folder": str(result.folder),
        "downloaded_bytes": result.downloaded,
    }
    return answer, OK, [f"{result.name}: {came}, verified, in {result.folder}"]


def _weights_verify(args: argparse.Namespace) -> Answer:
    from facecore.models import verify

    checks = verify(args.name)
    # A known pack that nobody pulled is no fault, unless it was asked for by name.
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


def _calibrate(args: argparse.Namespace) -> Answer:
    from facecore import calibrating
    from facecore.models.calibrations import check_writable

    pictures = calibrating.find_pictures(args.folder)
    engine = _engine(args)
    path = args.out or calibrating.default_file(engine)
    check_writable(path)
    result = calibrating.measure(
        engine,
        pictures,
        dataset=args.name or args.folder.resolve().name or str(args.folder),
        face=args.face,
        id_portraits=not args.no_id_portraits,
        progress=sys.stderr.isatty(),
    )
    calibrating.save(path, engine, result)
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
        if not args.place.is_file():
            raise InvalidParameter(f"{args.place} is not a file")
    elif not args.place.is_dir():
        raise InvalidParameter(f"{args.place} is not a folder")
    if args.report:  # what is missing is said before the work, not after it
        from facecore import extras

        extras.require_extra("matplotlib.figure")
        extras.require_extra("sklearn.metrics")
        from facecore.evaluation.report import report_paths
        from facecore.files import check_writable, make_folder

        wanted = report_paths(args.report)
        make_folder(wanted.html.parent)
        check_writable(wanted.html)
        check_writable(wanted.json)
    engine = _engine(args)
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
        try:
            written = write_report(result, engine, args.report, title=title, source=source)
        except FacecoreError as error:  # the numbers took long, and are right
            _complain(error.code, str(error))
            status, answer["report"] = ERROR, None
        else:
            answer["report"] = {"html": str(written.html), "json": str(written.json)}
            lines.append(f"report              {written.html}")
    # A file name need not be UTF-8, which is what is printed.
    return answer, status, [line.encode("utf-8", "backslashreplace").decode() for line in lines]


if __name__ == "__main__":
    sys.exit(main())
