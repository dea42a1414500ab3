"""``facecore liveness``."""

from __future__ import annotations

import argparse
from pathlib import Path

from facecore.cli.common import MODELS, NO, OK, Answer, Commands
from facecore.cli.common import engine as engine_of

_LIVENESS = """\
Was a face photographed from a print or a screen?

The largest face is judged, by the traces that paper and displays leave in one picture.  Give
the camera's own picture, not a resized one.  It was measured on simulated attacks only, and
does not stop good masks or pictures that are fed in behind the camera.

exit status: 0 no attack found, 1 attack, 2 error

example:
  facecore liveness selfie.jpg --json
"""


def add_commands(commands: Commands) -> None:
    """Add the command of this module."""
    liveness = commands.add("liveness", _liveness, _LIVENESS, MODELS)
    liveness.add_argument("image", metavar="IMG", help="picture: JPEG, PNG, WebP, BMP or TIFF")
    liveness.add_argument(
        "--threshold", type=float, help="attack score of an attack (default: the pack's)"
    )
    liveness.add_argument(
        "--draw", metavar="OUT", type=Path, help="write the picture with the face, red if an attack"
    )


def _liveness(args: argparse.Namespace) -> Answer:
    threshold, args.threshold = args.threshold, None  # the engine's is for comparisons
    engine = engine_of(args)
    sample = engine.sample(args.image)
    found = engine.liveness(sample, threshold=threshold)
    word = "ATTACK" if found.is_attack else "no attack found"
    lines = [f"{word}: attack score {found.attack_score:.1f} (threshold {found.threshold:g})"]
    lines += [f"  {name:20} {value:8.2f}" for name, value in found.cues.items()]
    if args.draw:
        from facecore.drawing import GREEN, RED, draw_faces, write_image

        colour = RED if found.is_attack else GREEN
        write_image(args.draw, draw_faces(sample.pixels, [sample.face], colour))
        lines.append(f"drawn into {args.draw}")
    answer = {
        "is_attack": found.is_attack,
        "attack_score": found.attack_score,
        "threshold": found.threshold,
        "cues": found.cues,
        "box": [round(float(v), 2) for v in sample.face.box],
    }
    return answer, NO if found.is_attack else OK, lines
