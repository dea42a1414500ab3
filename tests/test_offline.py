"""Nothing leaves the device: a comparison leaves no file, socket or foreign thread."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from facecore.models import session

# On one processor neither OpenBLAS nor OpenCV starts threads, so every thread left is counted.
COMPARE = """
import json, os, sys, threading, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import facecore
from facecore import demo

engine = facecore.FaceEngine(threads=1)
engine.compare(demo.read("astronaut"), demo.read("hopper"))
opened, threads = set(), set()
for _ in range(30):
    time.sleep(0.05)
    for number in os.listdir("/proc/self/fd"):
        try:
            opened.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # the folder's own
            pass
    threads |= set(map(int, os.listdir("/proc/self/task")))
ours = {thread.native_id for thread in threading.enumerate()}
print(json.dumps({"opened": sorted(opened), "foreign_threads": sorted(threads - ours)}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_comparison_leaves_no_file_no_socket_and_no_foreign_thread(tmp_path: Path) -> None:
    told = {"ORT_DISABLE_TELEMETRY", "FACECORE_CACHE"}
    kept = {k: v for k, v in os.environ.items() if k not in told and not k.startswith("XDG_")}
    folders = {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("CACHE", "CONFIG", "DATA")}
    for folder in folders.values():
        Path(folder).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        env=kept | folders | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["foreign_threads"] == []
    assert [path for path in found["opened"] if path.startswith("socket:")] == []
    assert [path for path in found["opened"] if path.startswith(str(tmp_path))] == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_another_library_was_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session._onnxruntime()  # imported from here on
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    with caplog.at_level(logging.WARNING):
        session._onnxruntime()
        session._onnxruntime()
    assert [record.getMessage() for record in caplog.records] == [
        "onnxruntime was imported before facecore could turn off its telemetry; "
        "set ORT_DISABLE_TELEMETRY=1 in the environment"
    ]
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_choice_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    session._onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
