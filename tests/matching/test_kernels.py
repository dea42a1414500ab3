"""The kernels agree with their NumPy forms, and these forms with float64, for every row."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecore.matching import kernels, scanning
from facecore.matching.kernels import compile_kernel
from facecore.matching.scanning import ScanBlock, scan
from facecore.matching.similarity import (
    Candidates,
    Codes,
    cosine,
    dots,
    encode,
    encode_probes,
    scan_numpy,
)

Array = np.ndarray[Any, Any]
ALL = np.zeros(0, np.bool_)


def unit(seed: int, count: int, dimension: int, kind: str = "normal") -> Array:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dimension))
    if kind == "one-hot":
        rows = np.eye(dimension)[rng.integers(0, dimension, count)] * rng.choice(
            [-1, 1], (count, 1)
        )
    elif kind == "constant":
        rows = rng.choice([-1.0, 1.0], (count, 1)) * np.ones(dimension)
    elif kind == "near ties":
        rows = rows[:1] + 1e-6 * rows
    elif kind == "duplicates":
        rows = rows[rng.integers(0, max(1, count // 3), count)]
    elif kind == "spiky":
        rows = rows**9
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length == 0, 1, length)).astype(np.float32)


kinds = st.sampled_from(["normal", "one-hot", "constant", "near ties", "duplicates", "spiky"])


@given(st.integers(0, 2**32), kinds, kinds, st.integers(1, 600))
def test_bounds_hold_for_every_pair(seed: int, kind: str, other: str, dimension: int) -> None:
    rows, wanted = unit(seed, 40, dimension, kind), unit(seed + 1, 3, dimension, other)
    found = Candidates(3, 40)
    groups = np.zeros(40, np.int32)
    scan_numpy(encode(rows), groups, ALL, encode_probes(wanted), 7, found)
    for j, probe in enumerate(wanted):
        assert found.counts[j] == 40
        np.testing.assert_array_equal(found.rows[j, :40], np.arange(7, 47))
        exact = dots(rows, probe)
        assert (found.lower[j, :40] <= exact).all()
        assert (exact <= found.upper[j, :40]).all()
        assert (found.upper[j, :40] - found.lower[j, :40] < 2 * np.sqrt(dimension) / 127).all()


def test_the_bounds_of_a_face_vector_are_tight() -> None:
    rows = unit(0, 1000, 128)
    found = Candidates(1, 1000)
    scan_numpy(encode(rows), np.zeros(1000, np.int32), ALL, encode_probes(rows[:1]), 0, found)
    assert (found.upper[0, :1000] - found.lower[0, :1000]).max() < 0.03


@pytest.mark.parametrize("dimension", [1, 31, 32, 33, 128, 512, 3000])
def test_codes_are_what_they_say(dimension: int) -> None:
    rows = unit(1, 50, dimension)
    rows[3] = 0
    codes = encode(rows)
    assert codes.values.shape == (50, Codes.width(dimension))
    assert not codes.values[:, dimension:].any()
    assert codes.values.min() >= -127
    back = codes.values[:, :dimension] * codes.scales.astype(np.float64)[:, None]
    left = np.linalg.norm(rows - back, axis=1)
    assert (left <= codes.errors).all()
    assert (codes.errors <= left * (1 + 1e-6) + 1e-30).all()
    np.testing.assert_array_equal(np.abs(codes.values).max(axis=1)[:3], 127)
    probes = encode_probes(rows[:3])
    most = np.abs(probes.values.astype(np.int64)).sum(axis=1).max() * 127
    assert most < 2**31


@pytest.mark.parametrize("dimension", [5, 128, 200])
@pytest.mark.parametrize("filtered", [False, True])
def test_kernel_and_plain_form_find_the_same(dimension: int, filtered: bool) -> None:
    rows, wanted = unit(2, 5000, dimension), unit(3, 5, dimension)
    rows[1000:1100] = rows[:100]
    codes, probes = encode(rows), encode_probes(wanted)
    groups = (np.arange(5000) % 7).astype(np.int32)
    allowed = np.isin(np.arange(7), [2, 5]) if filtered else ALL
    plain, fast = Candidates(5, 10), Candidates(5, 10)
    fast.make_room(20000)
    scan_numpy(codes, groups, allowed, probes, 0, plain)
    run = compile_kernel("scan", codes.values.shape[1])
    arrays = (codes.values, codes.scales, codes.errors, groups, allowed, probes.values)
    spans = (probes.scales, probes.gains, probes.offsets, 0, 0)
    collected = (fast.best, fast.rows, fast.lower, fast.upper, fast.counts)
    assert run(*arrays, *spans, *collected) == 5000
    for j in range(5):
        ours, theirs = (Candidates.merge([found], j) for found in (fast, plain))
        for a, b in zip(ours, theirs, strict=True):  # bit by bit: rows, lower, upper
            np.testing.assert_array_equal(a[np.argsort(ours[0])], b[np.argsort(theirs[0])])
        np.testing.assert_array_equal(np.sort(fast.best[j]), np.sort(plain.best[j]))
        if filtered:
            assert set(ours[0] % 7) <= {2, 5}


def test_a_full_buffer_is_emptied_or_grown_and_nothing_is_lost() -> None:
    # The worst order: each row is better than all before.
    angle = np.linspace(np.pi / 2, 0, 30000)
    rows = np.stack((np.cos(angle), np.sin(angle)), axis=1).astype(np.float32)
    probe = np.float32([[1, 0]])
    groups = np.zeros(30000, np.int32)
    scanning.warmup(2)
    for part in (rows, np.repeat(rows[-1:], 30000, axis=0)):
        codes = encode(part)
        found = scan([ScanBlock(codes, groups, 0)], encode_probes(probe), 3, ALL, 1)
        kept, lower, upper = Candidates.merge(found, 0)
        exact = dots(part, probe[0])
        assert (lower <= exact[kept]).all()
        assert (exact[kept] <= upper).all()
        assert set(np.flatnonzero(exact >= np.sort(exact)[-3])) <= set(kept)
    assert len(kept) == 30000  # all rows are equal


@settings(max_examples=25)
@given(st.integers(0, 2**32), kinds, st.integers(1, 40), st.integers(1, 3), st.integers(1, 4))
def test_pieces_and_threads_change_nothing(
    seed: int, kind: str, k: int, probes: int, threads: int
) -> None:
    scanning.warmup(20)
    rows, wanted = unit(seed, 900, 20, kind), unit(seed + 1, probes, 20)
    groups = np.zeros(900, np.int32)
    cuts = [0, 1, 300, 300, 700, 900]
    codes = encode(rows)
    blocks = [ScanBlock(codes.rows(a, b), groups[a:b], a) for a, b in pairwise(cuts)]
    found = scan(blocks, encode_probes(wanted), k, ALL, threads)
    for j, probe in enumerate(wanted):
        kept = Candidates.merge(found, j)[0]
        assert len(set(kept)) == len(kept)
        exact = dots(rows, probe)
        assert set(np.flatnonzero(exact >= np.sort(exact)[-k])) <= set(kept)


def test_an_error_in_a_helper_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> int:
        raise RuntimeError("broken")

    monkeypatch.setitem(scanning._kernels, ("scan", 32), broken)
    codes = encode(unit(0, 10, 32))
    blocks = [ScanBlock(codes, np.zeros(10, np.int32), 0)] * 5
    with pytest.raises(RuntimeError, match="broken"):
        scan(blocks, encode_probes(unit(1, 1, 32)), 1, ALL, 3)


def test_no_product_of_the_plain_form_is_large_enough_for_the_threads_of_blas() -> None:
    products = []

    class Watched(np.ndarray[Any, Any]):
        def __matmul__(self, other: Array) -> Array:
            products.append((self.shape, other.shape))
            return np.asarray(self) @ other

    for dimension, probes in ((160, 1), (160, 16), (512, 3), (8192, 1), (8192, 16)):
        codes = encode(unit(6, 50, dimension))
        codes = Codes(codes.values.view(Watched), codes.scales, codes.errors)
        wanted = encode_probes(unit(7, probes, dimension))
        scan_numpy(codes, np.zeros(50, np.int32), ALL, wanted, 0, Candidates(probes, 5))
    assert all(rows * width * columns <= 2**18 for (rows, width), (_, columns) in products)
    assert all(rows > 1 and columns > 1 for (rows, _), (_, columns) in products)


def test_dots_do_not_depend_on_place_or_order() -> None:
    rows = np.repeat(unit(4, 1, 77), 100, axis=0)
    probe = unit(5, 1, 77)[0]
    assert len(set(dots(rows, probe).tolist())) == 1
    assert dots(rows, probe)[0] == dots(probe, rows[0]) == cosine(rows[:1], probe)[0]
    several = unit(6, 100, 77)
    np.testing.assert_array_equal(dots(np.asfortranarray(several), probe), dots(several, probe))


def python(code: str, **environment: str) -> str:
    made = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_nothing_is_compiled_until_it_pays() -> None:
    code = """
import sys, numpy as np, facecore
from facecore.gallery.index import ExactIndex
rows = np.eye(128, dtype=np.float32)
index = ExactIndex(128)
index.add(np.arange(128), rows)
assert index.search(rows, 1)[0][:, 0].tolist() == list(range(128))
print("numba" in sys.modules, "hnswlib" in sys.modules, end=" ")
facecore.warmup()
print("numba" in sys.modules)
"""
    assert python(code) == "False False True"


def test_numpy_alone_if_asked_for() -> None:
    code = """
import sys, numpy as np, facecore
from facecore.gallery.index import ExactIndex
from facecore.matching import scanning
scanning._NUMPY_PRODUCTS = 0
facecore.warmup()
index = ExactIndex(128)
index.add(np.arange(128), np.eye(128, dtype=np.float32))
assert index.search(np.eye(128, dtype=np.float32), 1)[0][:, 0].tolist() == list(range(128))
print("numba" in sys.modules)
"""
    assert python(code, FACECORE_KERNELS="numpy") == "False"


def test_machine_code_is_kept_where_no_other_version_finds_it(tmp_path: Path) -> None:
    code = """
import facecore
facecore.warmup(16)
from facecore.matching import scanning
print(sum(scanning._kernels["scan", 32].stats.cache_hits.values()))
"""
    place = {"FACECORE_CACHE": str(tmp_path)}
    assert python(code, **place) == "0"
    assert python(code, **place) == "1"
    (folder,) = (tmp_path / "kernels").iterdir()
    assert "numba" in folder.name
    assert folder.stat().st_mode & 0o077 == 0
    other = {"FACECORE_CACHE": str(tmp_path / "other"), "FACECORE_KERNEL_CACHE": "0"}
    assert python(code, **other) == "0"
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_a_cache_that_cannot_be_trusted_or_read_is_not_used(tmp_path: Path) -> None:
    code = """
import facecore
facecore.warmup(16)
from facecore.matching import kernels, scanning
print(kernels.cache_folder() is not None, type(scanning._kernels["scan", 32]).__name__)
"""
    place = {"FACECORE_CACHE": str(tmp_path)}
    assert python(code, **place) == "True CPUDispatcher"
    (folder,) = (tmp_path / "kernels").iterdir()
    (index,) = folder.rglob("*.nbi")
    index.write_bytes(index.read_bytes()[:20])
    assert python(code, **place) == "True CPUDispatcher"
    assert not list(folder.iterdir())  # the next process creates it again
    folder.chmod(0o770)
    assert python(code, **place) == "False CPUDispatcher"
    assert not list(folder.iterdir())
    (tmp_path / "file").touch()
    assert python(code, FACECORE_CACHE=str(tmp_path / "file")) == "False CPUDispatcher"


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_the_folder_around_the_cache_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACECORE_CACHE", str(tmp_path))
    before = os.umask(0o002)
    try:
        folder = kernels.cache_folder()
    finally:
        os.umask(before)
    assert folder is not None
    folder.parent.chmod(0o777)
    assert kernels.cache_folder() == folder
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert kernels.cache_folder() is None


def test_without_source_files_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a frozen application, whose modules name files that are not there."""
    monkeypatch.setenv("FACECORE_CACHE", str(tmp_path))
    assert kernels.cache_folder() is not None
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernels.pyc"))
    assert kernels.cache_folder() is None
