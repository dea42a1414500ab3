"""The mutation check stays applicable: every place that it changes is there, once."""

from __future__ import annotations

import runpy
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def test_every_mutation_applies() -> None:
    module = runpy.run_path(str(REPO / "benchmarks/mutations.py"))
    assert len(module["MUTATIONS"]) >= 40
    for mutation in module["MUTATIONS"]:
        source = (REPO / module["OPERATIONS"] / mutation.file).read_text(encoding="utf-8")
        assert source.count(mutation.old) == 1, mutation.what
        compile(source.replace(mutation.old, mutation.new), mutation.file, "exec")
