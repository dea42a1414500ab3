"""``facecore compare``, ``cross-compare``, ``detect`` and ``demo``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facecore._utils.text import count_of
from facecore.cli.common import (
    MODELS,
    NO,
    OK,
    PASSING,
    Answer,
    Commands,
    add_if_many,
    crowd,
)
from facecore.cli.common import engine as engine_of

if TYPE_CHECKING:
    from facecore import Comparison, Face
    from facecore.matching.calibration import Calibration

_COMPARE = """\
Do two pictures show the same person?

Compares the largest face of each.  The score ranges from 0 to 100; 1 % of pairs of
different people reach 70, 0.1 % reach 80 and 0.01 % reach 90.  If both faces are hard to
read, an allowance is subtracted from the similarity before scoring.

With --all, the comparison passes if any face of B passes.

exit status: 0 same person, 1 not, 2 error

examples:
  facecore compare passport.jpg selfie.jpg --json
  facecore compare eileen.jpg party.jpg --all
"""


def add_commands(commands: Commands) -> None:
    """Add the commands of this module."""
    two = commands.add("compare", _compare, _COMPARE, MODELS, PASSING)
    two.add_argument("a", metavar="A", help="first picture: JPEG, PNG, WebP, BMP, TIFF, JPEG 2000")
    two.add_argument("b", metavar="B", help="second picture")
    two.add_argument(
        "--id-portrait", action="store_true", help="one picture is an ID card's chip portrait"
    )
    many = two.add_mutually_exclusive_group()
    many.add_argument("--all", action="store_true", help="compare A with every face of B")
    add_if_many(many)

    chain = "Compare three pictures: A with B and B with C."
    three = commands.add("cross-compare", _cross_compare, chain, MODELS, PASSING)
    for name in "abc":
        three.add_argument(name, metavar=name.upper(), help="picture")
    three.add_argument(
        "--mode", choices=("chain", "loop"), default="chain", help="loop: also C with A"
    )

    text = "Find the faces of a picture, largest first."
    detect = commands.add("detect", _detect, text, MODELS)
    detect.add_argument("image", metavar="IMG", help="picture")
    detect.add_argument("--draw", metavar="OUT", type=Path, help="write the picture with its faces")

    text = "Compare the demo pictures of the package."
    demo = commands.add("demo", _demo, text, MODELS)
    demo.add_argument("--draw", metavar="OUT", type=Path, help="write the pictures side by side")


def face_fields(face: Face) -> dict[str, Any]:
    """Convert a face to JSON fields."""
    return {
        "box": [round(float(v), 2) for v in face.box],
        "landmarks": [[round(float(v), 2) for v in point] for point in face.landmarks],
        "confidence": round(face.confidence, 4),
    }


def place(face: Face) -> str:
    """Format the position of a face."""
    x1, y1, x2, y2 = face.box
    return f"x {x1:.0f}..{x2:.0f}, y {y1:.0f}..{y2:.0f}"


def _comparison(result: Comparison) -> dict[str, Any]:
    return {
        "passed": result.passed,
        "score": result.score,
        "similarity": result.similarity,
        "allowance": result.allowance,
        "threshold": result.threshold,
        "far_thresholds": {str(far): score for far, score in result.far_thresholds.items()},
        "faces": [face_fields(face) for face in result.faces],
        "others": list(result.others),
    }


def _verdict(result: Comparison, calibration: Calibration) -> str:
    """Format the decision, and how often strangers score as high, in one line."""
    far = float(calibration.far(result.score))
    about = "fewer than" if calibration.is_extrapolated(result.score) else "about"
    rarest = max(far, calibration.rarest_measured.far)
    strangers = f"{about} 1 in {1 / rarest:,.0f}" if rarest < 0.5 else "at least 1 in 2"
    word = "same person" if result.passed else "NOT the same person"
    less = f" less an allowance of {result.allowance:.3f}" if result.allowance else ""
    return (
        f"{word}: score {result.score:.1f} (threshold {result.threshold:g}, "
        f"similarity {result.similarity:.3f}{less}); {strangers} pairs of strangers score as high"
    )


def _compare(args: argparse.Namespace) -> Answer:
    engine = engine_of(args)
    table = engine.id_portrait_calibration if args.id_portrait else engine.calibration
    if args.all:
        results = engine.compare_all(args.a, args.b, id_portrait=args.id_portrait)
        passed = any(result.passed for result in results)
        lines = [
            f"{place(result.faces[1])}: {_verdict(result, table or engine.calibration)}"
            for result in results
        ]
        lines = lines or [f"no face that can be recognised in {args.b}"]
        if results:
            others, more = results[0].others
            lines += crowd(args.a, others)
            if more >= len(results):
                lines.append(f"{count_of(more + 1 - len(results))} cannot be recognised")
        answer = {"passed": passed, "comparisons": [_comparison(result) for result in results]}
        return answer, OK if passed else NO, lines
    result = engine.compare(args.a, args.b, id_portrait=args.id_portrait, if_many=args.if_many)
    lines = [_verdict(result, table or engine.calibration)]
    for path, others in zip((args.a, args.b), result.others, strict=True):
        lines += crowd(path, others, "--all uses each")
    return _comparison(result), OK if result.passed else NO, lines


def _cross_compare(args: argparse.Namespace) -> Answer:
    engine = engine_of(args)
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
    for path, others in zip(
        (args.a, args.b, args.c), (*result.ab.others, result.bc.others[1]), strict=True
    ):
        lines += crowd(path, others)
    return answer, OK if result.passed else NO, lines


def _detect(args: argparse.Namespace) -> Answer:
    from facecore import images

    engine = engine_of(args)
    pixels = images.load(args.image)
    faces = engine.detect(pixels)
    lines = [
        f"{face.size:.0f} px at {place(face)}, confidence {face.confidence:.2f}" for face in faces
    ]
    if args.draw:
        from facecore.drawing import draw_faces, write_image

        write_image(args.draw, draw_faces(pixels, faces))
        lines.append(f"picture written to {args.draw}")
    lines.insert(0, count_of(len(faces)))
    height, width = pixels.shape[:2]
    return (
        {"width": width, "height": height, "faces": [face_fields(face) for face in faces]},
        OK,
        lines,
    )


def _demo(args: argparse.Namespace) -> Answer:
    from facecore import demo

    pictures = demo.pictures()
    engine = engine_of(args)
    results = {
        name: engine.compare(pictures[first], pictures[second])
        for name, (first, second) in demo.PAIRS.items()
    }
    lines = [f"{name}:\n  {_verdict(r, engine.calibration)}" for name, r in results.items()]
    if args.draw:
        from facecore.drawing import write_image

        write_image(args.draw, demo.draw(pictures, results))
        lines.append(f"picture written to {args.draw}")
    return {name: _comparison(result) for name, result in results.items()}, OK, lines
