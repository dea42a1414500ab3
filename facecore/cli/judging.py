"""``facecore quality``: what a picture of a face is worth, and what else it tells."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facecore.cli.common import MODELS, OK, Answer, Commands
from facecore.cli.common import engine as engine_of

if TYPE_CHECKING:
    from facecore import Attributes

_QUALITY = """\
How well will a picture serve for comparison?

The unified score runs from 0 to 100; HIGH is 80 and above, LOW is below 50.  Each
measure runs from 0 to 100, where 100 is best, and stands beside its raw value.

example:
  facecore quality selfie.jpg --draw marked.png
"""


def add_commands(commands: Commands) -> None:
    """Add the commands of this module."""
    quality = commands.add("quality", _quality, _QUALITY, MODELS)
    quality.add_argument("image", metavar="IMG", help="picture; its largest face is judged")
    quality.add_argument(
        "--attributes", action="store_true", help="also apparent age and gender: reference values"
    )
    quality.add_argument("--draw", metavar="OUT", type=Path, help="write the picture with a chart")


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
        lines.append(f"drawn into {args.draw}")
    return answer, OK, lines


def _attributes(found: Attributes | None) -> str:
    if found is None:
        return "apparent age and gender: the picture is too poor to say"
    word = "female" if found.gender == "F" else "male"
    return (
        f"apparent age {found.age:.0f} (± {found.age_spread:.0f}), {word} "
        f"({found.gender_confidence:.0%}): reference values, see weights/README.md"
    )
