"""Every notebook runs from its first cell to its last."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))

# A separate process, because nbclient and its kernel leave event loops and sockets open, and
# the tests turn every warning into an error.
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
assert all(not cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
client = NotebookClient(notebook, timeout=300, kernel_name="python3",
                        resources={"metadata": {"path": sys.argv[2]}})
client.execute()
for cell in notebook.cells:
    for output in cell.get("outputs", []):
        print(output.get("text", ""), end="")
"""


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    environment = dict(os.environ)
    if "FACECORE_DATA" in path.read_text(encoding="utf-8"):
        london: Path = request.getfixturevalue("london_folder")
        environment["FACECORE_DATA"] = str(london.parents[1].resolve())
    environment |= {
        "MPLBACKEND": "agg",
        "TMPDIR": str(tmp_path),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(path.parent)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
