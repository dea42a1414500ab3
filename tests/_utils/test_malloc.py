"""facecore._utils.malloc: keep free pages between pictures, give them back after large ones."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from facecore import FaceEngine, NoFaceDetected
from facecore._utils import malloc


def test_large_pictures_give_back_at_most_once_a_second(
    engine: FaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    clock = 100.0
    monkeypatch.setattr(malloc, "malloc_trim", lambda: calls.append)
    monkeypatch.setattr(malloc, "monotonic", lambda: clock)
    monkeypatch.setattr(malloc, "_last", -np.inf)
    small, large = np.zeros((64, 64, 3), np.uint8), np.zeros((1200, 1300, 3), np.uint8)
    engine.detect(small)
    assert calls == []
    engine.detect(large)
    # A JPEG counts with its full size, even if it is decoded at a reduced size.
    with pytest.raises(NoFaceDetected):
        engine.embed(cv2.imencode(".jpg", large)[1].tobytes())
    assert calls == [0]
    clock += 1.5
    engine.detect(large)
    assert calls == [0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heaps")
def test_the_heap_really_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    if malloc.malloc_trim() is None:
        pytest.skip("the C library has no malloc_trim")

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    piece = 2**16  # below every mmap threshold, so it comes from the heap
    pieces = [np.ones(piece, np.uint8) for _ in range(2000)]
    pieces, kept = [], pieces[-1]  # the last piece keeps the heap's end in use
    before = resident()
    monkeypatch.setattr(malloc, "_last", -np.inf)
    malloc.trim_heap()
    assert before - resident() > 1000 * piece
    assert kept.all()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heaps")
def test_pictures_do_not_fault_in_their_pages_again() -> None:
    if malloc.malloc_trim() is None:
        pytest.skip("the C library has no malloc_trim")
    code = """
import resource, sys
import numpy as np
from facecore._utils import malloc

if "keep" in sys.argv:
    malloc.keep_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    blocks = [np.ones(100_000, np.uint8) for _ in range(40)]  # 4 MB at the end of the heap
    blocks.clear()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

    def faults(*arguments: str) -> int:
        run = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        return int(run.stdout)

    assert faults("keep") * 4 < faults()
