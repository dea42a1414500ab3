"""Shared helpers of the benchmarks: fair timing, environment, data and JSON output."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facecore.cli.benchmark_timing import both_clocks, describe, interleaved, machine

__all__ = [
    "DATA",
    "arguments",
    "both_clocks",
    "describe",
    "interleaved",
    "machine",
    "resident",
    "write_json",
]

DATA = Path(os.environ.get("FACECORE_DATA", Path(__file__).parents[2] / "shared"))
"""Folder of the reference data; it may not exist."""


def arguments(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with the common options; `text` is the script's description."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser


def write_json(path: Path | None, facts: Mapping[str, Any], **results: Any) -> None:
    """Write the results and the environment, if a path was given."""
    if path is not None:
        answer = {"machine": dict(facts), **results}
        path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


def resident(field: str = "RssAnon") -> int:
    """Return resident memory in bytes (Linux): anonymous by default, all with VmRSS."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
