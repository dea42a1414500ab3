"""``facecore weights``: the model packs of this machine."""

from __future__ import annotations

import argparse
import sys
import textwrap

from facecore.cli.common import NO, OK, Answer, Commands


def add_commands(commands: Commands) -> None:
    """Add the commands of this module."""
    verbs = commands.group("weights", "model packs: list, pull, verify")
    verbs.add("list", _list, "Every known pack with its licences and caveats.")
    pull = verbs.add("pull", _pull, "Download a pack into the cache.")
    pull.add_argument("name", metavar="NAME", help="a name from: facecore weights list")
    verify = verbs.add("verify", _verify, "Hash the files of installed packs.")
    verify.add_argument("name", metavar="NAME", nargs="?", help="one pack (default: all)")


def _list(args: argparse.Namespace) -> Answer:
    from facecore.models.listing import list_packs

    answer, lines = {}, []
    for pack in list_packs():
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
