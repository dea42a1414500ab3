"""Engines and galleries in forked children, spawn pools and copies: docs/processes.md."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from facecore import FaceEngine, Gallery, InvalidParameter
from facecore.images import IsolatedDecoder, Limits
from facecore.matching.calibration import Calibration

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

START = """
import gc, os, signal, sys, threading, time
import numpy as np
import facecore
from facecore import demo

astronaut, hopper = demo.read("astronaut"), demo.read("hopper")

def end_of(child):
    # A child that hangs ends by a signal, so that the exit status tells.
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def run(code: str, folder: Path, *arguments: object) -> str:
    """Run a script in a separate process within a time limit; return its output."""
    script = folder / "script.py"
    script.write_text(START + code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


FORK = """
engine = facecore.FaceEngine(threads=int(sys.argv[1]))
expected = engine.embed(astronaut)
engine.liveness(astronaut)
engine.compare(astronaut, hopper)  # starts helpers
for use in ("drop", "inherit", "use"):
    for end in (sys.exit, os._exit):
        child = os.fork()
        if child == 0:
            if use == "drop":
                del engine
                gc.collect()
            elif use == "use":
                assert (engine.embed(astronaut) == expected).all()
                engine.compare(astronaut, hopper)
                engine.liveness(astronaut)
                assert len(list(engine.embed_many([astronaut, hopper]))) == 2
                grandchild = os.fork()
                if grandchild == 0:
                    assert (engine.embed(astronaut) == expected).all()
                    sys.exit(5)
                assert end_of(grandchild) == 5
            end(7)
        print(use, end.__name__, end_of(child))
assert (engine.embed(astronaut) == expected).all()
"""


@needs_fork
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_child_may_drop_inherit_or_use_an_engine(threads: int, tmp_path: Path) -> None:
    expected = [f"{use} {end} 7" for use in ("drop", "inherit", "use") for end in ("exit", "_exit")]
    assert run(FORK, tmp_path, threads).splitlines() == expected


@needs_fork
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_inherits_no_worker_of_opencv(tmp_path: Path) -> None:
    """The mutex of OpenCV's pool may be locked at the fork; the child's exit would wait for it."""
    code = """
import cv2
cv2.setNumThreads(2)
large = np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), np.uint8)
cv2.GaussianBlur(large, (0, 0), 3)
child = os.fork()
if child == 0:
    cv2.GaussianBlur(large, (0, 0), 3)
    sys.exit(cv2.getNumThreads())
threads = len(os.listdir("/proc/self/task"))  # NumPy's end at a fork, too
print(end_of(child), cv2.getNumThreads(), threads)
"""
    assert run(code, tmp_path) == "2 2 1\n"


@needs_fork
def test_a_fork_waits_for_models_that_another_thread_opens(tmp_path: Path) -> None:
    code = """
engine = facecore.FaceEngine(threads=2)
stop, local = threading.Event(), threading.local()
def open_engines():
    while not stop.is_set():
        local.engine = facecore.FaceEngine(threads=2)  # no other reference leads to it
thread = threading.Thread(target=open_engines)
thread.start()
codes = []
for _ in range(8):
    time.sleep(0.05)
    child = os.fork()
    if child == 0:
        engine.embed(astronaut)
        sys.exit(7)
    codes.append(end_of(child))
stop.set()
thread.join()
print(codes)
"""
    assert run(code, tmp_path) == f"{[7] * 8}\n"


@needs_fork
def test_workers_of_a_prefork_server_answer(tmp_path: Path) -> None:
    code = """
import http.client
from http.server import BaseHTTPRequestHandler, HTTPServer

engine = facecore.FaceEngine(threads=2)
engine.compare(astronaut, hopper)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        answer = f"{os.getpid()} {engine.compare(astronaut, hopper).passed}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *arguments):
        pass

servers = [HTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
workers = []
for server in servers:
    worker = os.fork()
    if worker == 0:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server.serve_forever()
    workers.append(worker)
for server, worker in zip(servers, workers):
    for _ in range(2):
        connection = http.client.HTTPConnection(*server.server_address, timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().read().decode() == f"{worker} False"
for worker in workers:
    os.kill(worker, signal.SIGTERM)
print([end_of(worker) for worker in workers])
"""
    assert run(code, tmp_path) == "[0, 0]\n"


@needs_fork
def test_a_gallery_refuses_a_child_and_outlives_it(tmp_path: Path) -> None:
    code = """
engine = facecore.FaceEngine(threads=2)
gallery = facecore.Gallery(sys.argv[1], engine)
gallery.create_group("staff")
gallery.add("staff", astronaut, user_id="eileen")
gallery.search(astronaut, limit=1)
child = os.fork()
if child == 0:
    for use in (lambda: gallery.search(astronaut, limit=1), lambda: len(gallery),
                lambda: gallery.add("staff", hopper, user_id="grace")):
        try:
            use()
        except facecore.InvalidParameter as error:
            assert "another process" in error.message and "open it" in error.hint
        else:
            sys.exit(1)
    del gallery
    gc.collect()
    sys.exit(7)
assert end_of(child) == 7
assert os.path.getsize(os.path.join(sys.argv[1], "gallery.db-wal"))  # the child removed nothing
gallery.add("staff", hopper, user_id="grace")
gallery.close()
with facecore.Gallery(sys.argv[1], engine) as gallery:
    print(len(gallery), gallery.search(hopper, limit=1)[0].user_id)
"""
    assert run(code, tmp_path, tmp_path / "staff.gallery") == "2 grace\n"


def test_a_spawn_pool_opens_engines_of_its_own(tmp_path: Path) -> None:
    code = """
import multiprocessing
if __name__ == "__main__":
    engine = facecore.FaceEngine(threads=2)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        vectors = pool.map(engine.embed, [astronaut, hopper], chunksize=2)
        pool.close()
        pool.join()
    print(*((engine.embed(p) == v).all() for p, v in zip((astronaut, hopper), vectors)))
"""
    assert run(code, tmp_path) == "True True\n"


def test_copies_are_opened_from_the_same_arguments(
    compact: FaceEngine, hopper: NDArray[np.uint8]
) -> None:
    spec = compact.pack.embedder.calibration
    assert spec is not None
    table = Calibration.from_spec(spec, compact.contract_id)
    limits = Limits(max_pixels=1_000_000)
    engine = FaceEngine(
        compact.pack.folder, ["CPU"], 1, threshold=70, calibration=table, limits=limits
    )
    for made in (pickle.loads(pickle.dumps(engine)), copy.deepcopy(engine), copy.copy(engine)):
        assert made is not engine
        assert (made.embed(hopper) == engine.embed(hopper)).all()
        assert (made.threshold, made.limits, made.calibration) == (70, limits, table)
        assert made._arguments == engine._arguments


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_copy_decodes_in_processes_of_its_own(hopper_path: Path) -> None:
    engine = FaceEngine(threads=1, isolate_decoding=True)
    made = pickle.loads(pickle.dumps(engine))
    assert made._decoder is not engine._decoder
    assert (made.embed(hopper_path) == engine.embed(hopper_path)).all()
    for each in (made, engine):
        assert isinstance(each._decoder, IsolatedDecoder)
        each._decoder.close()


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_gallery_cannot_be_copied(duplicate: object, tmp_path: Path, compact: FaceEngine) -> None:
    with (
        Gallery(tmp_path / "staff.gallery", compact) as gallery,
        pytest.raises(InvalidParameter, match="open it in the process that uses it"),
    ):
        duplicate(gallery)  # type: ignore[operator]
