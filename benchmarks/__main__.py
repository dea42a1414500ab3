"""Run one benchmark: ``python -m benchmarks NAME [options]``, from the repository's root."""

from __future__ import annotations

import ast
import os
import runpy
import sys
from pathlib import Path


def names() -> dict[str, str]:
    """Return the scripts and the first lines of their docstrings."""
    scripts = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {
        path.stem: (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]
        for path in scripts
    }


def main() -> int:
    known = names()
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        print(__doc__)
        for name, line in known.items():
            print(f"  {name:18} {line}")
        return 0 if sys.argv[1:] in ([], ["-h"], ["--help"]) else 2
    name = sys.argv.pop(1)
    sys.argv[0] = f"python -m benchmarks {name}"
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some import onnxruntime before facecore
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
