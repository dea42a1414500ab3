"""Saved HNSW indexes: equal bytes, equal answers, and damaged files refused."""

import json

import numpy as np
import pytest
from test_hnsw import D, build, clustered

from facecore.errors import IndexCorrupt
from facecore.gallery.index import generations
from facecore.gallery.index.hnsw import HnswIndex

pytest.importorskip("hnswlib")

FILES = {"hnsw.json", "ids.i8", "labels.i4", "levels.u1", "links.u4", "upper.u4", "vectors.f4"}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def saved(tmp_path):
    index, ids, _ = build(120, m=4, labels=np.arange(120) % 3, deterministic=True)
    index.remove(ids[:9])
    folder = tmp_path / "saved"
    folder.mkdir()
    index.save(folder)
    return folder


def exercise(folder):
    """Load, search and change the index; an invalid link would end the process here."""
    index = HnswIndex.load(folder, threads=1)
    for depth in (1, 40):
        index._hnswlib.knn_query(clustered(30, seed=2), depth)
    index.search(clustered(30, seed=2), 5, [1])
    index.add(range(1000, 1040), clustered(40, seed=4))
    return index


def test_the_same_answers(tmp_path):
    index, ids, vectors = build(3000, labels=np.arange(3000) % 5, threads=3)
    index.remove(ids[:300])
    index.save(tmp_path)
    assert set(contents(tmp_path)) == FILES
    loaded = HnswIndex.load(tmp_path, ef_search=80)
    assert (len(loaded), loaded.garbage) == (len(index), index.garbage)
    assert loaded.parameters == index.parameters == {"m": 16, "ef_construction": 60}
    probes = clustered(60, seed=1)
    for labels in (None, [2], [0, 4]):
        for before, after in zip(
            index.search(probes, 5, labels), loaded.search(probes, 5, labels), strict=True
        ):
            assert (before == after).mean() > 0.97  # the removed nodes lie elsewhere
    assert loaded.remove(ids[300:310]) == 10
    loaded.add(ids[:10], vectors[:10])
    np.testing.assert_array_equal(loaded.search(vectors[:10], 1)[0][:, 0], ids[:10])


def test_saved_again_the_bytes_are_the_same(tmp_path, saved):
    again = tmp_path / "again"
    again.mkdir()
    HnswIndex.load(saved).save(again)
    assert contents(again) == contents(saved)


@pytest.mark.parametrize("removed", [False, True])
def test_an_index_without_rows(tmp_path, removed):
    index = HnswIndex(D, m=5)
    if removed:
        index.add([1, 2], clustered(2))
        index.remove([1, 2])
    index.save(tmp_path)
    loaded = HnswIndex.load(tmp_path)
    assert len(loaded) == 0
    assert loaded.parameters["m"] == 5
    loaded.add(range(50), clustered(50))
    np.testing.assert_array_equal(loaded.search(clustered(50), 1)[0][:, 0], range(50))


def test_deterministic_builds_have_the_same_bytes(tmp_path):
    vectors, rng = clustered(1500), np.random.default_rng(0)
    folders = []
    for name in ("a", "b"):
        index = HnswIndex(D, deterministic=True, ef_construction=40)
        order = rng.permutation(1500)  # one call adds in the order of ids
        index.add(order, vectors[order], order % 7)
        index.remove(range(20))
        index.add(range(5), vectors[:5])
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        index.save(folders[-1])
    assert contents(folders[0]) == contents(folders[1])


def test_removed_and_replaced_vectors_are_overwritten_and_in_no_file(tmp_path):
    index, ids, vectors = build(600)
    index.remove(ids[:50])
    index.add(ids[50:60], vectors[:10][::-1].copy() * -1)
    gone = vectors[:60]
    index.save(tmp_path)
    files = contents(tmp_path)
    assert vectors[60].tobytes() in files["vectors.f4"]
    assert vectors[60].tobytes() in index._vectors.tobytes()
    for vector in gone:
        assert vector.tobytes() not in files["vectors.f4"]
        assert vector.tobytes() not in index._vectors.tobytes()
    for number in ids[:50]:
        assert number not in np.frombuffer(files["ids.i8"], "<i8")
    loaded = HnswIndex.load(tmp_path)
    nodes = loaded._hnswlib.__getstate__()[0]["data_level0"].tobytes()
    assert vectors[60].tobytes() in nodes
    assert not any(vector.tobytes() in nodes for vector in gone)
    # No saved row is nearly equal to a removed vector.
    rows = np.frombuffer(files["vectors.f4"], "<f4").reshape(-1, D)
    assert (gone[:50].astype(float) @ rows.T.astype(float)).max() < 1 - 1e-4


@pytest.mark.parametrize("name", sorted(FILES))
def test_flipped_bytes_are_noticed_or_do_no_harm(saved, name):
    path = saved / name
    data = path.read_bytes()
    noticed = 0
    for at in range(0, len(data), len(data) // 60 | 1):  # an odd step: all bytes of a number
        for flip in (0x01, 0x80):
            path.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
            try:
                exercise(saved)
            except IndexCorrupt:
                noticed += 1
    assert noticed > 10


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_other_length_is_noticed(saved, name):
    path = saved / name
    data = path.read_bytes()
    lengths = {*range(0, len(data), max(1, len(data) // 60)), len(data) - 1}
    for other in [data[:length] for length in lengths] + [data + b"\0", data + data]:
        path.write_bytes(other)
        with pytest.raises(IndexCorrupt):
            HnswIndex.load(saved)
    path.unlink()
    with pytest.raises(IndexCorrupt):
        HnswIndex.load(saved)
    path.mkdir()
    with pytest.raises(IndexCorrupt):
        HnswIndex.load(saved)


def rewrite(folder, name, kind, change):
    values = np.frombuffer((folder / name).read_bytes(), kind).copy()
    change(values)
    values.tofile(folder / name)


def set_to(at, value):
    def change(values):
        values[at] = value

    return change


@pytest.mark.parametrize(
    ("name", "kind", "change"),
    [
        ("links.u4", "<u4", set_to(1, 120)),  # no such node
        ("links.u4", "<u4", set_to(8, 2**32 - 1)),
        ("links.u4", "<u4", set_to(0, 9)),  # more links than there is room for
        ("links.u4", "<u4", set_to(0, 0x10001)),  # hnswlib's mark of a deleted row
        ("upper.u4", "<u4", set_to(1, 120)),
        ("upper.u4", "<u4", set_to(0, 5)),
        ("levels.u1", "u1", set_to(0, 65)),
        ("levels.u1", "u1", set_to(slice(None), 0)),
        ("ids.i8", "<i8", set_to(0, -2)),
        ("ids.i8", "<i8", set_to(slice(50, 52), 7)),
        ("labels.i4", "<i4", set_to(0, -1)),
        ("vectors.f4", "<f4", set_to(0, np.nan)),
        ("vectors.f4", "<f4", set_to(0, np.inf)),
        ("vectors.f4", "<f4", set_to(slice(-D, None), 0)),
    ],
)
def test_files_of_the_right_size_with_what_cannot_be(saved, name, kind, change):
    exercise(saved)
    rewrite(saved, name, kind, change)
    with pytest.raises(IndexCorrupt):
        HnswIndex.load(saved)


def test_a_link_to_a_level_that_its_end_has_not(saved):
    low = int(np.flatnonzero(np.frombuffer((saved / "levels.u1").read_bytes(), "u1") == 0)[0])
    rewrite(saved, "upper.u4", "<u4", set_to(slice(0, 2), (1, low)))
    with pytest.raises(IndexCorrupt, match="level"):
        HnswIndex.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 119},
        {"rows": 2**40},
        {"rows": -1},
        {"entry": 120},
        {"entry": 0},
        {"dimension": D + 1},
        {"dimension": 0},
        {"m": 5},
        {"m": 1},
        {"m": 10**6},
        {"upper": 0},
        {"format": 2},
        {"rows": True},
        {"rows": "120"},
        {"more": 1.5},
    ],
)
def test_headers_that_do_not_fit(saved, change):
    header = json.loads((saved / "hnsw.json").read_bytes()) | change
    (saved / "hnsw.json").write_text(json.dumps(header, indent=1))
    with pytest.raises(IndexCorrupt):
        HnswIndex.load(saved)


def test_as_a_generation(tmp_path):
    index, ids, vectors = build(200)
    generations.save(
        tmp_path, index, kind="hnsw", contract="c", watermark={}, parameters=index.parameters
    )
    found = generations.latest(tmp_path, "c", D)
    assert isinstance(found, generations.Generation)
    assert (found.rows, found.parameters) == (200, {"m": 16, "ef_construction": 60})
    loaded = HnswIndex.load(found.folder)
    np.testing.assert_array_equal(loaded.search(vectors, 1)[0][:, 0], ids)
    (found.folder / "levels.u1").unlink()
    assert isinstance(generations.latest(tmp_path, "c", D), generations.Unusable)
