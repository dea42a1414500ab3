"""The exact index always answers like a float64 scan of all rows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecore.errors import IndexCorrupt, InvalidParameter
from facecore.gallery import index as index_module
from facecore.gallery.index import ExactIndex, Index
from facecore.matching.scanning import warmup
from facecore.matching.similarity import dots

Array = np.ndarray[Any, Any]


def unit(seed: int, count: int, dimension: int = 24) -> Array:
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute(ids: Array, rows: Array, probe: Array, k: int) -> tuple[list[int], Array]:
    exact = dots(rows, probe)
    order = np.lexsort((ids, -exact))[:k]
    return ids[order].tolist(), np.clip(exact[order], -1, 1)


def filled(count: int = 500, dimension: int = 24, **options: Any) -> tuple[ExactIndex, Array]:
    index, rows = ExactIndex(dimension, **options), unit(0, count, dimension)
    index.add(np.arange(count), rows, labels=np.arange(count) % 3)
    return index, rows


def test_answers_have_the_promised_shapes_and_order() -> None:
    index, rows = filled()
    typed: Index = index
    ids, similarities = typed.search(rows[:4], 7)
    assert (ids.shape, similarities.shape) == ((4, 7), (4, 7))
    assert (ids.dtype, similarities.dtype) == (np.int64, np.float64)
    assert ids[:, 0].tolist() == [0, 1, 2, 3]
    assert (np.diff(similarities, axis=1) <= 0).all()
    alone = index.search(rows[2], 7)
    np.testing.assert_array_equal(alone[0], ids[2])
    np.testing.assert_array_equal(alone[1], similarities[2])
    assert index.search(rows[:0], 3)[0].shape == (0, 3)
    assert (len(index), index.dimension) == (500, 24)


def test_fewer_rows_than_asked_for_is_no_error() -> None:
    index = ExactIndex(24)
    assert index.search(unit(0, 2), 5)[0].shape == (2, 0)
    assert index.search(unit(0, 1)[0], 5)[1].shape == (0,)
    index.add([4, 2], unit(0, 2))
    assert sorted(index.search(unit(0, 1)[0], 10**9)[0].tolist()) == [2, 4]
    assert index.search(unit(0, 1)[0], 5, labels=[7])[0].shape == (0,)
    assert index.search(unit(0, 1)[0], 5, labels=[])[0].shape == (0,)


def test_ties_go_to_the_lower_id() -> None:
    index, row = ExactIndex(24), unit(0, 1)
    ids = np.random.default_rng(1).permutation(3000)
    index.add(ids, np.repeat(row, 3000, axis=0))
    assert index.search(row[0], 6)[0].tolist() == [0, 1, 2, 3, 4, 5]
    index.remove([0, 3])
    assert index.search(row[0], 6)[0].tolist() == [1, 2, 4, 5, 6, 7]


def test_labels_choose_rows() -> None:
    index, rows = filled()
    ids = np.arange(500)
    for labels in ([0], [1, 2], [2, 2, 9], [0, 1, 2]):
        chosen = np.isin(ids % 3, labels)
        expected = brute(ids[chosen], rows[chosen], rows[5], 8)
        found = index.search(rows[5], 8, labels=labels)
        assert found[0].tolist() == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])
    assert index.search(rows[5], 10**6, labels=[1])[0].shape == (167,)
    index.add([1], rows[1:2], labels=[2**31 - 1])
    assert index.search(rows[1], 3, labels=[2**31 - 1])[0].tolist() == [1]
    assert index.search(rows[1], 10**6, labels=[1])[0].shape == (166,)


def test_an_id_that_exists_is_replaced() -> None:
    index, rows = filled()
    new = unit(9, 3)
    index.add([10, 1000, 20], new, labels=[5, 5, 5])
    assert len(index) == 501
    for key, row in zip([10, 1000, 20], new, strict=True):
        assert index.search(row, 1)[0].tolist() == [key]
    assert sorted(index.search(rows[10], 9, labels=[5])[0].tolist()) == [10, 20, 1000]


def test_removal_overwrites_what_was_there() -> None:
    index, rows = filled(3000)
    gone = np.random.default_rng(2).permutation(3000)[:1800]
    assert index.remove([*gone, 5000, gone[0]]) == 1800
    assert index.remove(gone) == 0
    assert len(index) == 1200
    kept = np.setdiff1d(np.arange(3000), gone)
    for probe in rows[:20]:
        assert index.search(probe, 9)[0].tolist() == brute(kept, rows[kept], probe, 9)[0]
    (chunk,) = index._rows._chunks
    for name, field in chunk.items():
        assert not field[1200:3000].any(), name
    assert {row.tobytes() for row in chunk["vectors"][:1200]} == {r.tobytes() for r in rows[kept]}
    index.remove(kept)
    assert len(index) == 0
    assert not index._rows._chunks
    index.add(gone, rows[gone])
    assert index.search(rows[gone[7]], 1)[0].tolist() == [gone[7]]


def test_rows_in_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facecore.gallery.index.exact._CHUNK", 64)
    monkeypatch.setattr("facecore.gallery.index.exact._SCAN_BLOCK", 20)
    index, rows = filled(1000)
    index.remove(np.arange(0, 1000, 3))
    kept = np.setdiff1d(np.arange(1000), np.arange(0, 1000, 3))
    assert len(index._rows._chunks) == -(-len(kept) // 64)
    for probe in rows[:20]:
        assert index.search(probe, 9)[0].tolist() == brute(kept, rows[kept], probe, 9)[0]


def test_rows_can_come_from_elsewhere(tmp_path: Path) -> None:
    rows, asked = unit(0, 500), []

    def fetch(ids: Array) -> Array:
        asked.append(len(ids))
        return rows[ids]

    index, _ = filled(keep_vectors=False)
    probe = unit(1, 1)[0]
    assert (
        index.search(probe, 5, fetch=fetch)[0].tolist() == brute(np.arange(500), rows, probe, 5)[0]
    )
    assert 5 <= sum(asked) < 100
    assert "vectors" not in index._rows._chunks[0]
    with pytest.raises(InvalidParameter, match="keeps no vectors"):
        index.search(probe, 5)
    with pytest.raises(InvalidParameter, match="keeps no vectors"):
        index.save(tmp_path)


@pytest.mark.parametrize(
    "fetch",
    [
        lambda ids: unit(5, len(ids)),
        lambda ids: unit(0, 500)[ids].astype(np.float64),
        lambda ids: unit(0, 500)[ids[1:]],
        lambda ids: np.full((len(ids), 24), np.nan, np.float32),
    ],
    ids=["others", "float64", "too few", "none"],
)
def test_fetched_rows_that_are_not_those_added_are_noticed(fetch: Any) -> None:
    index, rows = filled(keep_vectors=False)
    with pytest.raises(IndexCorrupt, match="fetched"):
        index.search(rows[0], 5, fetch=fetch)


@pytest.mark.parametrize(
    ("ids", "vectors", "labels"),
    [
        ([1, 1], unit(0, 2), None),
        ([-1, 1], unit(0, 2), None),
        ([0.5, 1], unit(0, 2), None),
        ([2**63, 1], unit(0, 2), None),
        ([1], unit(0, 2), None),
        ([[1, 2]], unit(0, 2), None),
        ([[1], [2, 3]], unit(0, 2), None),
        ([1, 2], unit(0, 2, 25), None),
        ([1, 2], unit(0, 2)[0], None),
        ([1, 2], unit(0, 2) * 1.01, None),
        ([1, 2], unit(0, 2) * np.nan, None),
        ([1, 2], np.full((2, 24), 3e38, np.float32), None),
        ([1, 2], "xy", None),
        ([1, 2], [unit(0, 1)[0], unit(0, 1)[0, :5]], None),
        ([1, 2], unit(0, 2) + 0.5j, None),
        ([1, 2], unit(0, 2) * np.float64(1e300), None),
        ([1, 2], [[10**400] * 24] * 2, None),
        ([1, 2], unit(0, 2), [1]),
        ([1, 2], unit(0, 2), [-1, 1]),
        ([1, 2], unit(0, 2), [2**31, 1]),
        ([1, 2], unit(0, 2), [True, False]),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    ids: Any, vectors: Any, labels: Any
) -> None:
    index, rows = filled(10)
    with pytest.raises(InvalidParameter):
        index.add(ids, vectors, labels)
    assert len(index) == 10
    assert index.search(rows[1], 1)[0].tolist() == [1]


def test_wrong_options_are_refused() -> None:
    for dimension in (0, 10**6, 4.0, "4", None):
        with pytest.raises(InvalidParameter, match="dimension is"):
            ExactIndex(dimension)  # type: ignore[arg-type]
    for threads in (0, 1.5, "2"):
        with pytest.raises(InvalidParameter, match="threads is"):
            ExactIndex(4, threads=threads)  # type: ignore[arg-type]
    index, rows = filled(10)
    for k in (0, 2.5, "5", None):
        with pytest.raises(InvalidParameter, match="k is"):
            index.search(rows[0], k)  # type: ignore[arg-type]
    ragged, complex_numbers, huge = [rows[0], rows[0, :5]], rows[0] + 0.5j, [10**400] * 24
    for probe in (rows[0, :5], rows[0] * 2, rows[None], ragged, complex_numbers, huge, 1.0):
        with pytest.raises(InvalidParameter, match="vector"):
            index.search(probe, 1)
    with pytest.raises(InvalidParameter):
        index.search(rows[0], 1, labels=[-2])
    assert index.remove([]) == 0
    index.add([], np.empty((0, 24), np.float32))
    assert len(index) == 10


@pytest.mark.parametrize("method", ["put", "remove"])
def test_a_change_that_runs_out_of_memory_changes_nothing(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    index, rows = filled(10)
    with monkeypatch.context() as patch:
        patch.setattr(f"facecore.gallery.index.exact._Rows.{method}", fail)
        with pytest.raises(MemoryError):
            index.remove([0]) if method == "remove" else index.add([0, 99], rows[:2], [0, 7])
    for labels, ids in (([0], [0, 3, 6, 9]), ([7], []), (None, list(range(10)))):
        assert sorted(index.search(rows[0], 99, labels)[0].tolist()) == ids
    index.add([0, 99], rows[:2], [0, 7])
    assert index.search(rows[1], 99, [7])[0].tolist() == [99]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    index, rows = filled(threads=1)
    index.remove(np.arange(0, 500, 7))
    index.save(tmp_path)
    again = ExactIndex.load(str(tmp_path), threads=2)
    assert (len(again), again.dimension) == (len(index), 24)
    for labels in (None, [1], [0, 2]):
        for one, other in zip(
            index.search(rows[:30], 9, labels), again.search(rows[:30], 9, labels), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    assert again.remove([1]) == 1


def test_arguments_of_saving_and_loading(tmp_path: Path) -> None:
    index, _ = filled(10)
    with pytest.raises(InvalidParameter, match="cannot be written"):
        index.save(tmp_path / "missing")
    index.save(str(tmp_path))
    with pytest.raises(InvalidParameter, match="threads"):
        ExactIndex.load(tmp_path, threads=0)


def test_an_empty_index_can_be_saved(tmp_path: Path) -> None:
    ExactIndex(5).save(tmp_path)
    again = ExactIndex.load(tmp_path)
    assert (len(again), again.dimension) == (0, 5)


def damaged(name: str, change: Any) -> Any:
    def damage(folder: Path) -> None:
        array = np.load(folder / f"{name}.npy")
        changed = change(array)
        np.save(folder / f"{name}.npy", array if changed is None else changed)

    return damage


def put(value: Any) -> Any:
    def change(array: Array) -> None:
        array[3] = value

    return change


def cut(name: str, by: int) -> Any:
    def damage(folder: Path) -> None:
        data = (folder / f"{name}.npy").read_bytes()
        (folder / f"{name}.npy").write_bytes(data[:-by] if by > 0 else data + b"\0" * -by)

    return damage


def unclosed(folder: Path) -> None:
    """Let the header of an array be no Python, but a text without an end."""
    data = bytearray((folder / "labels.npy").read_bytes())
    data[10:11] = b'"'
    (folder / "labels.npy").write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        unclosed,
        damaged("ids", put(4)),
        damaged("ids", put(499)),
        damaged("ids", put(-1)),
        damaged("ids", lambda a: a.astype(np.float64)),
        damaged("ids", lambda a: a.astype(object)),
        damaged("ids", lambda a: a[:-1]),
        damaged("labels", put(-1)),
        damaged("labels", lambda a: a[:, None]),
        damaged("vectors", put(0.5)),
        damaged("vectors", put(np.nan)),
        damaged("vectors", lambda a: a[:, 1:]),
        damaged("vectors", lambda a: a[:, :0]),
        damaged("vectors", lambda a: a[0, 0]),
        cut("vectors", 1),
        cut("ids", 10**4),
        lambda folder: (folder / "labels.npy").unlink(),
        lambda folder: (folder / "labels.npy").write_bytes(b""),
        lambda folder: (folder / "labels.npy").write_bytes(b"no array at all, but long enough"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: Any) -> None:
    index, _ = filled()
    index.save(tmp_path)
    ExactIndex.load(tmp_path)
    damage(tmp_path)
    with pytest.raises(IndexCorrupt):
        ExactIndex.load(tmp_path)


def test_unknown_names_of_the_module() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = index_module.Nothing


@pytest.mark.parametrize("compiled", [True, False])
def test_threads_search_while_one_writes(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    dimension = 128 if compiled else 40
    if compiled:
        warmup(dimension)
        monkeypatch.setattr(
            "facecore.gallery.index.exact._SCAN_BLOCK", 256
        )  # all threads take part
    rows = unit(0, 3000, dimension)
    index = ExactIndex(dimension, threads=2)
    index.add(np.arange(1000), rows[:1000])  # these stay
    failures: list[BaseException] = []
    done = threading.Event()

    def search(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while not done.is_set():
                key = int(rng.integers(0, 1000))
                ids, similarities = index.search(rows[key], 5)
                assert ids[0] == key
                assert len(set(ids.tolist())) == 5
                # No torn reads: each similarity belongs to its id.
                exact = np.clip(dots(rows[ids], rows[key]), -1, 1)
                np.testing.assert_array_equal(similarities, exact)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(15):
        some = np.arange(1000 + turn, 3000, 3)
        index.add(some, rows[some], labels=some % 5)
        assert index.remove(some[::2]) == len(some[::2])
        index.remove(some)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert len(index) == 1000
