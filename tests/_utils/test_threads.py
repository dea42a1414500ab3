"""facecore._utils.threads: order of results, errors, and work without helper threads."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import subprocess
import sys
import tarfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from facecore import FaceEngine
from facecore._utils import threads
from facecore._utils.threads import at_once, pool


def test_results_keep_their_order_and_run_side_by_side() -> None:
    both = threading.Barrier(2, timeout=30)

    def meet(name: str) -> Callable[[], str]:
        def task() -> str:
            both.wait()
            return name

        return task

    assert at_once([meet("first"), meet("second")]) == ["first", "second"]
    assert at_once([lambda: 1]) == [1]


def test_the_first_task_that_fails_decides() -> None:
    later = threading.Event()

    def first() -> None:
        later.wait(30)
        raise KeyError("first")

    def second() -> None:
        later.set()
        raise ValueError("second")

    with pytest.raises(KeyError):
        at_once([first, second])
    with pytest.raises(ValueError, match="second"):
        at_once([lambda: None, second])


def test_a_failure_keeps_no_result_alive() -> None:
    """Results may be pictures; a reference cycle would keep them until garbage collection."""

    class Pixels:
        pass

    made = weakref.WeakSet[Pixels]()

    def first() -> Pixels:
        pixels = Pixels()
        made.add(pixels)
        return pixels

    def second() -> Pixels:
        raise ValueError("second")

    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            at_once([first, second])
        assert len(made) == 0
    finally:
        gc.enable()


def test_a_busy_pool_leaves_the_work_to_the_caller() -> None:
    go_on = threading.Event()
    blocked = [pool().submit(go_on.wait, 30) for _ in range(64)]
    try:
        here = threading.get_ident()
        assert at_once([threading.get_ident] * 3) == [here] * 3
        assert at_once([lambda: at_once([lambda: 1, lambda: 2])] * 2) == [[1, 2]] * 2
    finally:
        go_on.set()
        for future in blocked:
            future.cancel()


def test_without_threads_the_caller_works(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def submit(self, task: object) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "pool", Full)
    assert at_once([lambda: 1, lambda: 2]) == [1, 2]


def test_a_process_that_ends_may_still_work() -> None:
    code = (
        "import atexit\n"
        "from facecore._utils.threads import at_once\n"
        "tasks = [lambda: 'one', lambda: 'two']\n"
        "atexit.register(lambda: print(at_once(tasks)))\n"
        "print(at_once(tasks))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["['one', 'two']"] * 2
    assert done.stderr == ""


def test_images_that_share_a_file_are_read_one_after_the_other(
    compact: FaceEngine, astronaut: np.ndarray, tmp_path: Path
) -> None:
    large = cv2.resize(astronaut, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", large)[1].tobytes()
    for _ in range(4):
        lazy = Image.open(io.BytesIO(data))  # not decoded yet
        assert compact.compare(lazy, lazy).passed
    with tarfile.open(tmp_path / "two.tar", "w") as tar:
        for name in ("a.jpg", "b.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    for _ in range(4):
        with tarfile.open(tmp_path / "two.tar") as tar:
            a, b = (tar.extractfile(name) for name in ("a.jpg", "b.jpg"))
            assert a is not None
            assert b is not None
            assert compact.compare(a, b).passed
    with tarfile.open(tmp_path / "two.tar") as tar:
        files = [tar.extractfile("a.jpg") for _ in range(12)]
        vectors = list(compact.embed_many([f for f in files if f is not None], batch_size=4))
    assert all(isinstance(vector, np.ndarray) for vector in vectors)


def test_a_process_ends_after_an_interrupt_while_a_helper_starts() -> None:
    code = (
        "import threading\n"
        "from facecore._utils.threads import at_once\n"
        "start = threading.Thread.start\n"
        "def interrupted(thread):\n"
        "    threading.Thread.start = start\n"
        "    start(thread)\n"
        "    raise KeyboardInterrupt\n"
        "threading.Thread.start = interrupted\n"
        "try:\n"
        "    at_once([int, int])\n"
        "except KeyboardInterrupt:\n"
        "    print(at_once([int, int]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("[0, 0]\n", "", 0)
