"""The HNSW index against a float64 scan of all rows in plain NumPy."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecore.errors import IndexCorrupt, InvalidParameter
from facecore.gallery.index import hnsw
from facecore.gallery.index.hnsw import HnswIndex

pytest.importorskip("hnswlib")

D = 24


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def clustered(count, seed=0, dimension=D, clusters=40):
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((clusters, dimension)))
    return unit(
        centres[rng.integers(0, clusters, count)] + 0.1 * rng.standard_normal((count, dimension))
    )


def brute(ids, vectors, probes, k, eligible=None):
    """Return ids and similarities of the best rows, computed from all rows in float64."""
    ids, vectors = np.asarray(ids), np.asarray(vectors)
    if eligible is not None:
        ids, vectors = ids[eligible], vectors[eligible]
    similarities = (probes[:, None].astype(np.float64) * vectors.astype(np.float64)).sum(axis=-1)
    best = np.stack([np.lexsort((ids, -row)) for row in similarities])[:, :k]
    return ids[best], np.take_along_axis(similarities, best, axis=1)


@pytest.fixture
def graph_only(monkeypatch):
    """Search the graph even if it is small; by default few rows are scanned."""
    monkeypatch.setattr(hnsw, "_ROWS_PER_STEP", 0.25)


def build(count=2000, seed=0, labels=None, **options):
    options = {"m": 16, "ef_construction": 60, "ef_search": 80, "threads": 1} | options
    index, vectors = HnswIndex(D, **options), clustered(count, seed)
    ids = np.random.default_rng(seed).permutation(3 * count)[:count]
    index.add(ids, vectors, labels)
    return index, ids, vectors


@pytest.mark.usefixtures("graph_only")
def test_it_finds_what_a_scan_finds():
    index, ids, vectors = build()
    probes = clustered(100, seed=1)
    found, similarities = index.search(probes, 5)
    best, exact = brute(ids, vectors, probes, 5)
    assert found.dtype == np.int64
    assert similarities.dtype == np.float64
    assert (found == best).mean() > 0.98
    np.testing.assert_array_equal(similarities[found == best], exact[found == best])


@pytest.mark.usefixtures("graph_only")
def test_similarities_are_those_of_the_rows_and_in_order():
    index, ids, vectors = build()
    where = dict(zip(ids.tolist(), vectors, strict=True))
    probes = clustered(50, seed=1)
    found, similarities = index.search(probes, 30)
    for probe, row, values in zip(probes, found.tolist(), similarities, strict=True):
        assert len(set(row)) == 30
        true = [np.dot(where[i].astype(np.float64), probe.astype(np.float64)) for i in row]
        np.testing.assert_allclose(values, true, rtol=0, atol=6e-8)
        assert sorted(zip(-values, row, strict=True)) == list(zip(-values, row, strict=True))


def test_few_rows_are_scanned_and_exact():
    index, ids, vectors = build(500)
    probes = clustered(70, seed=1)
    found, similarities = index.search(probes, 7)
    best, exact = brute(ids, vectors, probes, 7)
    np.testing.assert_array_equal(found, best)
    np.testing.assert_array_equal(similarities, exact)


@pytest.mark.parametrize("per_step", [0.01, 20])
def test_equal_rows_come_by_id(monkeypatch, per_step):
    monkeypatch.setattr(hnsw, "_ROWS_PER_STEP", per_step)
    index = HnswIndex(D, threads=1)
    vectors = clustered(30)
    index.add(range(100, 130), vectors)
    index.add(range(30), vectors)
    found, similarities = index.search(vectors, 2)
    np.testing.assert_array_equal(found, np.stack((np.arange(30), np.arange(100, 130)), axis=1))
    np.testing.assert_array_equal(similarities[:, 0], similarities[:, 1])


def test_one_vector_gives_flat_arrays():
    index, _, vectors = build(50)
    found, similarities = index.search(vectors[3], 4)
    both = index.search(vectors[3:4], 4)
    assert found.shape == similarities.shape == (4,)
    np.testing.assert_array_equal(found, both[0][0])
    np.testing.assert_array_equal(similarities, both[1][0])


@pytest.mark.parametrize("per_step", [0.01, 20])
@pytest.mark.parametrize("k", [1, 49, 50, 51, 10**12])
def test_k_larger_than_what_is_there(monkeypatch, per_step, k):
    monkeypatch.setattr(hnsw, "_ROWS_PER_STEP", per_step)
    index, ids, vectors = build(50)
    found, _ = index.search(vectors[:3], k)
    assert found.shape == (3, min(k, 50))
    np.testing.assert_array_equal(found, brute(ids, vectors, vectors[:3], min(k, 50))[0])


def test_an_empty_index():
    index = HnswIndex(D)
    assert (len(index), index.garbage, index.dimension) == (0, 0.0, D)
    found, similarities = index.search(clustered(3), 5)
    assert found.shape == similarities.shape == (3, 0)
    assert index.search(clustered(1)[0], 5)[0].shape == (0,)
    assert index.remove([1, 2]) == 0
    index.add([], np.empty((0, D), np.float32))
    assert len(index) == 0
    assert index.search(np.empty((0, D)), 5)[0].shape == (0, 0)


@pytest.mark.parametrize("per_step", [0.05, 20])
def test_labels(monkeypatch, per_step):
    monkeypatch.setattr(hnsw, "_ROWS_PER_STEP", per_step)
    labels = np.random.default_rng(5).integers(0, 8, 2000)
    index, ids, vectors = build(labels=labels, ef_search=120)
    probes = clustered(40, seed=1)
    for wanted in ([3], [1, 2, 5], [7, 7], [0, 99]):
        found, similarities = index.search(probes, 5, wanted)
        best, exact = brute(ids, vectors, probes, 5, np.isin(labels, wanted))
        assert (found == best).mean() > (0.97 if per_step < 1 else 1 - 1e-9)
        np.testing.assert_array_equal(similarities[found == best], exact[found == best])
    assert index.search(probes, 5, [99])[0].shape == (40, 0)
    assert index.search(probes, 5, [])[0].shape == (40, 0)


def test_labels_that_lie_far_from_the_probe(monkeypatch):
    monkeypatch.setattr(hnsw, "_ROWS_PER_STEP", 1)
    near, far = clustered(1900, clusters=1), clustered(100, seed=9)
    index = HnswIndex(D, ef_search=20, threads=1)
    index.add(range(1900), near, np.zeros(1900, int))
    index.add(range(1900, 2000), far, np.ones(100, int))
    found, _ = index.search(near[:10], 5, [1])
    np.testing.assert_array_equal(found, brute(range(1900, 2000), far, near[:10], 5)[0])


def test_removed_rows_around_the_probe(monkeypatch):
    monkeypatch.setattr(hnsw, "_ROWS_PER_STEP", 1)
    near, far = clustered(300, clusters=1), clustered(1700, seed=9)
    index = HnswIndex(D, ef_search=20, threads=1)
    index.add(range(300), near)
    index.add(range(300, 2000), far)
    assert index.remove(range(290)) == 290
    found, _ = index.search(near[:10], 5)
    left = np.concatenate((near[290:], far))
    np.testing.assert_array_equal(found, brute(range(290, 2000), left, near[:10], 5)[0])


def test_a_row_whose_id_comes_again_is_replaced():
    index, ids, vectors = build(300)
    index.add(ids[:10], vectors[10:20], np.full(10, 4))
    assert len(index) == 300
    assert index.garbage == pytest.approx(10 / 310)
    found, _ = index.search(vectors[10:20], 1, [4])
    np.testing.assert_array_equal(found[:, 0], ids[:10])
    changed = vectors.copy()
    changed[:10] = vectors[10:20]
    best, _ = brute(ids, changed, vectors, 3)
    np.testing.assert_array_equal(index.search(vectors, 3)[0], best)


def test_the_same_row_again_changes_only_its_label():
    index, ids, vectors = build(300)
    index.add(ids, vectors, np.arange(300) % 2)
    assert index.garbage == 0
    found, _ = index.search(vectors[:20], 200, [1])
    assert found.shape == (20, 150)
    assert set(found[0].tolist()) == set(ids[1::2].tolist())
    assert index.search(vectors, 1, [2])[0].size == 0


def test_removed_ids_are_gone_and_may_come_back():
    index, ids, vectors = build(300)
    assert index.remove([*ids[:100], *ids[:5], 10**15]) == 100
    assert index.remove(ids[:100]) == 0
    assert len(index) == 200
    assert index.garbage == pytest.approx(1 / 3)
    found, _ = index.search(vectors, 300)
    assert found.shape == (300, 200)
    assert not np.isin(found, ids[:100]).any()
    index.add(ids[:50], vectors[:50])
    assert len(index) == 250
    np.testing.assert_array_equal(index.search(vectors[:50], 1)[0][:, 0], ids[:50])


def test_all_rows_removed():
    index, ids, vectors = build(300)
    assert index.remove(ids) == 300
    assert (len(index), index.garbage) == (0, 1.0)
    assert index.search(vectors, 5)[0].shape == (300, 0)
    index.add(ids[:20], vectors[:20])
    np.testing.assert_array_equal(index.search(vectors[:20], 1)[0][:, 0], ids[:20])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "search", "saved"]),
            st.lists(st.integers(0, 40), max_size=25, unique=True),
            st.integers(0, 3),
        ),
        max_size=12,
    ),
    st.sampled_from([0.02, 20]),
)
def test_any_history_answers_like_a_dictionary(tmp_path_factory, calls, per_step):
    pool, probes = clustered(64, clusters=8), clustered(5, seed=1, clusters=8)
    index, rows = HnswIndex(D, ef_search=100, threads=1), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hnsw, "_ROWS_PER_STEP", per_step)
        for number, (call, ids, label) in enumerate(calls):
            if call == "add":
                vectors = pool[[(i + number) % 64 for i in ids]].reshape(-1, D)
                index.add(ids, vectors, [label] * len(ids))
                rows |= {i: (v, label) for i, v in zip(ids, vectors, strict=True)}
            elif call == "remove":
                assert index.remove(ids) == len(rows.keys() & set(ids))
                rows = {i: row for i, row in rows.items() if i not in ids}
            elif call == "saved":
                folder = tmp_path_factory.mktemp("index")
                index.save(folder)
                index = HnswIndex.load(folder, ef_search=100, threads=1)
            assert len(index) == len(rows)
            for labels in (None, [label]):
                left = sorted(i for i in rows if labels is None or rows[i][1] == label)
                found, similarities = index.search(probes, 6, labels)
                assert found.shape == similarities.shape == (5, min(6, len(left)))
                if left:
                    # With few rows and many links, the graph reaches every row.
                    vectors = np.stack([rows[i][0] for i in left])
                    best, exact = brute(left, vectors, probes, 6)
                    np.testing.assert_array_equal(found, best)
                    np.testing.assert_array_equal(similarities, exact)


def test_a_big_call_is_added_in_blocks(monkeypatch):
    monkeypatch.setattr(hnsw, "_BLOCK", 64)
    index, vectors, seen = HnswIndex(D), clustered(200), []
    index.add(range(200), vectors, progress=seen.append)
    assert seen == [64, 64, 64, 8]
    np.testing.assert_array_equal(index.search(vectors, 1)[0][:, 0], range(200))


@pytest.mark.parametrize(
    "options",
    [
        {"dimension": 0},
        {"dimension": 10**6},
        {"m": 1},
        {"m": 513},
        {"ef_construction": 0},
        {"ef_search": 0},
        {"threads": 0},
        {"dimension": 4.0},
        {"m": "8"},
        {"ef_search": None},
    ],
)
def test_parameters_out_of_range(options):
    with pytest.raises(InvalidParameter, match=next(iter(options))):
        HnswIndex(**{"dimension": D} | options)


@pytest.mark.parametrize(
    ("ids", "vectors", "labels"),
    [
        ([1, 1], clustered(2), None),
        ([1], clustered(2), None),
        ([1, 2], clustered(2), [0]),
        ([-1, 2], clustered(2), None),
        ([1.5, 2], clustered(2), None),
        ([1, 2], clustered(2)[:, :-1], None),
        ([1, 2], clustered(2) * 1.01, None),
        ([1, 2], clustered(2) * np.nan, None),
        ([1, 2], clustered(2), [0, -1]),
        ([1, 2], [["a"] * D] * 2, None),
    ],
)
def test_rows_that_cannot_be_added(ids, vectors, labels):
    index, _, _ = build(20)
    with pytest.raises(InvalidParameter):
        index.add(ids, vectors, labels)
    assert (len(index), index.garbage) == (20, 0.0)


def test_searches_that_cannot_be_made():
    index, _, vectors = build(20)
    for k in (0, 2.5, "5", None):
        with pytest.raises(InvalidParameter, match="k is"):
            index.search(vectors, k)
    ragged = [vectors[0], vectors[0, :5]]
    for probes in (vectors[:, :-1], vectors * 2, vectors[None], ragged, vectors + 0.5j):
        with pytest.raises(InvalidParameter, match="vector"):
            index.search(probes, 1)


def test_width_is_kept_after_load_and_grows_with_garbage(tmp_path):
    index, ids, _ = build(100, ef_search=77)
    index.save(tmp_path)
    assert HnswIndex.load(tmp_path, ef_search=55)._hnswlib.ef == 55
    index.remove(ids[:50])
    assert index._hnswlib.ef == 154


class Failing:
    """An `hnswlib.Index` with some failing calls."""

    def __init__(self, index, *calls):
        self._index, self._calls = index, calls

    def __getattr__(self, name):
        if name in self._calls:
            raise RuntimeError("as told")
        return getattr(self._index, name)

    def __getstate__(self):
        return self._index.__getstate__()


@pytest.mark.usefixtures("graph_only")
def test_rows_that_the_graph_does_not_reach_are_found_by_a_scan():
    index, ids, vectors = build(500)
    index._hnswlib = Failing(index._hnswlib, "knn_query")
    np.testing.assert_array_equal(
        index.search(vectors[:20], 3)[0], brute(ids, vectors, vectors[:20], 3)[0]
    )


@pytest.mark.parametrize("method", ["add_items", "resize_index"])
def test_a_failure_of_hnswlib_leaves_no_half_row(tmp_path, method):
    index, ids, vectors = build(100)
    index._hnswlib = Failing(index._hnswlib, method)
    with pytest.raises(IndexCorrupt, match="as told"):
        index.add([ids[0], *range(10**6, 10**6 + 999)], clustered(1000, seed=1))
    assert len(index) == 100
    np.testing.assert_array_equal(index.search(vectors, 1)[0][:, 0], ids)
    index.save(tmp_path)
    loaded = HnswIndex.load(str(tmp_path))
    assert len(loaded) == 100
    np.testing.assert_array_equal(loaded.search(vectors, 1)[0][:, 0], ids)


def test_many_threads():
    index, ids, vectors = build(400, threads=2)
    extra = clustered(400, seed=3)
    kept = ids[:200].tolist()

    def change(part):
        mine = range(10_000 + 100 * part, 10_100 + 100 * part)
        for _ in range(5):
            index.add(mine, extra[100 * part : 100 * part + 100])
            assert index.remove(mine) == 100
        index.add(mine, extra[100 * part : 100 * part + 100])

    def ask(_):
        for at in range(0, 200, 20):
            found, similarities = index.search(vectors[at : at + 20], 3)
            assert found[:, 0].tolist() == kept[at : at + 20]  # these rows never change
            assert (np.diff(similarities, axis=1) <= 0).all()

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(change, part) for part in range(4)]
        jobs += [pool.submit(ask, part) for part in range(4)]
        for job in jobs:
            job.result()
    assert len(index) == 800
    every = np.concatenate((vectors, extra))
    best, _ = brute([*ids, *range(10_000, 10_400)], every, every[::7], 4)
    assert (index.search(every[::7], 4)[0] == best).mean() > 0.98


def test_hnswlib_is_imported_only_where_an_index_is_built():
    code = (
        "import sys; from facecore.gallery.index.hnsw import HnswIndex;"
        "assert 'hnswlib' not in sys.modules; HnswIndex(4); assert 'hnswlib' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
