"""``facecore quality`` and ``liveness``: picture quality and presentation attacks."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facecore.cli.common import MODELS, NO, OK, Answer, Commands
from facecore.cli.common import engine as engine_of

if TYPE_CHECKING:
    from facecore import Attributes

_QUALITY = """\
How suitable is a picture for comparison?

The unified score ranges from 0 to 100; HIGH is 80 and above, LOW is below 50.  Each
measure ranges from 0 to 100, where 100 is best, and is shown with its raw value.

example:
  facecore quality selfie.jpg --draw marked.png
"""

_LIVENESS = """\
Was a face photographed from a print or a screen?

Checks the largest face for the traces that paper and displays leave in a picture.  Give
the camera's original picture, including the surroundings of the face.  The check does not stop
good masks or pictures injected behind the camera; measure it on your own attacks with
facecore evaluate liveness.

exit status: 0 no attack found, 1 attack, 2 error

example:
  facecore liveness selfie.jpg --json
"""


def add_commands(commands: Commands) -> None:
    """Add the commands of this module."""
    quality = commands.add("quality", _quality, _QUALITY, MODELS)
    quality.add_argument("image", metavar="IMG", help="picture; its largest face is used")
    quality.add_argument(
        "--attributes",
        action="store_true",
        help="also estimate apparent age and gender, for reference",
    )
    quality.add_argument("--draw", metavar="OUT", type=Path, help="write the picture with a chart")
    liveness = commands.add("liveness", _liveness, _LIVENESS, MODELS)
    liveness.add_argument("image", metavar="IMG", help="picture; its largest face is used")
    liveness.add_argument(
        "--threshold",
        dest="limit",  # `threshold` is the comparison threshold of the engine
        metavar="THRESHOLD",
        type=float,
        help="lowest attack score that counts as an attack (default: the pack's)",
    )
    liveness.add_argument(
        "--draw", metavar="OUT", type=Path, help="write the picture with the face, red if an attack"
    )


def _quality(args: argparse.Namespace) -> Answer:
    from facecore.face.measures import MEASURES

    engine = engine_of(args)
    sample = engine.sample(args.image)
    result = engine.quality(sample)
    answer: dict[str, Any] = {
        "score": result.score,
        "level": result.level,
        "measures": dict(result.measures),
        "raw": dict(result.raw),
    }
    lines = [f"{result.level}: score {result.score:.1f}"]
    for name, value in result.measures.items():
        lines.append(f"{value:6.1f}  {name:24} {result.raw[name]:10.4g}  {MEASURES[name].raw}")
    if args.attributes:
        found = engine.attributes(sample)
        answer["attributes"] = found and dataclasses.asdict(found)
        lines.append(_attributes(found))
    if args.draw:
        from facecore.drawing import draw_quality, write_image

        write_image(args.draw, draw_quality(sample.pixels, sample.face, result))
        lines.append(f"picture written to {args.draw}")
    return answer, OK, lines


def _liveness(args: argparse.Namespace) -> Answer:
    engine = engine_of(args)
    sample = engine.sample(args.image)
    found = engine.liveness(sample, threshold=args.limit)
    word = "ATTACK" if found.is_attack else "no attack found"
    lines = [f"{word}: attack score {found.attack_score:.1f} (threshold {found.threshold:g})"]
    lines += [f"  {name:20} {value:8.2f}" for name, value in found.cues.items()]
    if found.reasons:
        lines.append(f"signs of an attack: {', '.join(found.reasons)}")
    if args.draw:
        from facecore.drawing import GREEN, RED, draw_faces, write_image

        colour = RED if found.is_attack else GREEN
        label = f"attack score {found.attack_score:.0f}"
        write_image(args.draw, draw_faces(sample.pixels, [sample.face], colour, [label]))
        lines.append(f"picture written to {args.draw}")
    answer = {
        "is_attack": found.is_attack,
        "attack_score": found.attack_score,
        "threshold": found.threshold,
        "cues": found.cues,
        "reasons": list(found.reasons),
        "box": [round(float(v), 2) for v in sample.face.box],
    }
    return answer, NO if found.is_attack else OK, lines


def _attributes(found: Attributes | None) -> str:
    if found is None:
        return "apparent age and gender: not estimated, the picture quality is LOW"
    word = "female" if found.gender == "F" else "male"
    return (
        f"apparent age {found.age:.0f} (± {found.age_spread:.0f}), {word} "
        f"({found.gender_confidence:.0%}): reference values, see weights/README.md"
    )
