"""Behaviour of every kind of gallery: in a folder, plain or encrypted, and on Milvus."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import DIMENSION

import facecore
from facecore import FaceEngine, Gallery
from facecore.errors import GalleryUnusable

Array = np.ndarray[Any, Any]
ODD = "it's \"not\\ {x} or id > 0\u202e\U0001f600"


@pytest.fixture(params=["folder", "encrypted", "milvus"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param != "milvus":
        return str(tmp_path / f"{request.param}.gallery")
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    return "milvus+" + (tmp_path / "a.db").as_uri()


@pytest.fixture
def key(address: str) -> bytes | None:
    if "encrypted" not in address:
        return None
    pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
    return bytes(range(32))


@pytest.fixture
def gallery(address: str, key: bytes | None, compact: FaceEngine) -> Iterator[Gallery]:
    with Gallery(address, compact, index="exact", key=key) as made:
        made.create_group("staff", title="Staff", description="two\nlines")
        made.create_group(ODD)
        yield made


def unit(count: int, engine: FaceEngine, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, engine.pack.embedder.output.dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_groups(gallery: Gallery) -> None:
    staff, odd = gallery.groups()
    assert (staff.name, staff.title, staff.description) == ("staff", "Staff", "two\nlines")
    assert (odd.name, odd.size) == (ODD, 0)
    assert staff.id < odd.id
    assert abs((datetime.now(UTC) - staff.created).total_seconds()) < 60
    assert gallery.group(ODD) == odd == gallery.group_by_id(odd.id)
    with pytest.raises(facecore.GroupExists):
        gallery.create_group("staff")
    assert gallery.create_group("staff", title="other", exist_ok=True) == staff
    assert gallery.update_group("staff", title="T").title == "T"
    assert gallery.group("staff").description == "two\nlines"
    assert [g.name for g in gallery.groups(title="T")] == ["staff"]
    assert [g.name for g in gallery.groups(offset=1, limit=5)] == [ODD]
    assert gallery.delete_group("staff") == 0
    for call in (
        lambda: gallery.group("staff"),
        lambda: gallery.group_by_id(staff.id),
        lambda: gallery.delete_group("staff"),
        lambda: gallery.update_group("staff"),
        lambda: gallery.remove("staff", user_id="u"),
        lambda: gallery.records("staff"),
    ):
        with pytest.raises(facecore.GroupNotFound):
            call()
    assert gallery.create_group("staff").id > odd.id


def test_a_search_is_the_same_as_a_comparison(
    gallery: Gallery, compact: FaceEngine, astronaut: Array, hopper: Array
) -> None:
    first = gallery.add("staff", astronaut, ODD)
    gallery.add(ODD, hopper, "grace", origin="AUTO")
    best, other = gallery.search(astronaut, limit=10)
    assert (best.face_id, best.user_id, best.group) == (first.face_id, ODD, "staff")
    assert best.similarity == compact.compare(astronaut, astronaut).similarity
    assert other.score == compact.compare(astronaut, hopper).score
    assert [m.user_id for m in gallery.search(astronaut, [ODD])] == ["grace"]
    assert gallery.search(astronaut, []) == []
    assert [m.user_id for m in gallery.search(hopper, far=0.001)] == ["grace"]
    with pytest.raises(facecore.GroupNotFound):
        gallery.search(hopper, ["staff", "visitors"])


def test_many_templates_are_found_and_paged(gallery: Gallery, compact: FaceEngine) -> None:
    vectors = unit(300, compact)
    users = [f"{ODD} {i % 7}" for i in range(300)]
    added = gallery.add_templates("staff", vectors, users, contract=compact.contract_id)
    assert gallery.records("staff", limit=1000) == added
    assert gallery.records("staff", 100, 50) == added[100:150]
    assert gallery.records("staff", 298, 10**30) == added[298:]
    assert gallery.records("staff", 10**30, 10**30) == []
    assert len(gallery.groups(limit=10**30)) == 2
    assert gallery.groups(offset=10**30, limit=10**30) == []
    assert gallery.records("staff", 2, 2, user_id=users[3]) == added[17:31:7]
    assert gallery.count(user_id=users[3]) == 43
    assert gallery.count("staff", origin="AUTO") == 0
    assert gallery.users_groups(users[3]) == ["staff"]
    assert gallery.users_groups("nobody") == []
    assert gallery.record(added[5].face_id) == added[5] == gallery.record_by_id(added[5].id)
    assert gallery.known([added[5].face_id, "0" * 32]) == {added[5].face_id}
    for call in (
        lambda: gallery.record("0" * 32),
        lambda: gallery.record_by_id(10**15),
        lambda: gallery.record_by_id(10**30),
    ):
        with pytest.raises(facecore.RecordNotFound):
            call()
    batches = list(gallery.templates(batch_size=128))
    assert [record for records, _ in batches for record in records] == added
    np.testing.assert_array_equal(np.concatenate([v for _, v in batches]), vectors)
    probe = vectors[7] + 0.2 * vectors[8]
    probe /= np.linalg.norm(probe)
    hits, compared = gallery._backend.search(probe, None, 20, count=True)
    assert compared == 300
    order = np.argsort(-(vectors.astype(float) @ probe))[:20]
    assert [hit.record.id for hit in hits] == [added[i].id for i in order]
    assert len(gallery._backend.search(probe, ["staff"], 1000)[0]) == 300
    assert gallery.remove("staff", user_id=users[3]) == 43
    assert gallery.remove("staff", face_id=added[0].face_id) == 1
    assert gallery.remove("staff", user_id="nobody") == 0
    assert len(gallery) == gallery.count() == gallery.group("staff").size == 256
    stats = gallery.stats()
    assert (stats.groups, stats.faces, stats.users, stats.dimension) == (2, 256, 6, DIMENSION)
    gallery.compact()
    assert gallery.delete_group("staff") == 256
    assert len(gallery) == 0
    assert gallery._backend.search(probe, None, 20, count=True) == ([], 0)


def test_a_user_who_is_there(gallery: Gallery, compact: FaceEngine, astronaut: Array) -> None:
    first = gallery.add("staff", astronaut, "u")
    gallery.add("staff", astronaut, "v")
    gallery.add(ODD, astronaut, "u")
    with pytest.raises(facecore.UserExists, match="'u'"):
        gallery.add("staff", astronaut, "u", on_existing="refuse")
    gallery.add("staff", astronaut, "w", on_existing="refuse")
    second = gallery.add("staff", astronaut, "u", twice=True)
    assert second.face_id != first.face_id
    third = gallery.add("staff", astronaut, "u", on_existing="replace")
    assert gallery.known([first.face_id, second.face_id]) == set()
    assert gallery.records("staff", user_id="u") == [third]
    assert gallery.count() == 4


def test_templates_keep_what_they_come_with(gallery: Gallery, compact: FaceEngine) -> None:
    moment = datetime(2001, 2, 3, 4, 5, 6, 789_012, UTC)
    given: dict[str, Any] = {
        "face_ids": ["a" * 32, "b" * 32],
        "quality": [None, 12.345678901234567],
        "origin": ["AUTO", "MANUAL"],
        "created": moment,
        "contract": compact.contract_id,
    }
    vectors = unit(2, compact)
    added = gallery.add_templates("staff", vectors, ["u", "v"], **given)
    assert [(r.face_id, r.quality, r.origin) for r in added] == list(
        zip(*(given[k] for k in ("face_ids", "quality", "origin")), strict=True)
    )
    assert {record.created for record in added} == {moment}
    assert gallery.records() == added
    with pytest.raises(facecore.InvalidParameter, match="a" * 32):
        gallery.add_templates(
            "staff",
            vectors[:1],
            ["w"],
            **given | {"face_ids": ["a" * 32]} | {"quality": None, "origin": "AUTO"},
        )
    with pytest.raises(facecore.ContractMismatch, match="unknown pack"):
        gallery.add_templates("staff", vectors, ["u", "v"], contract="c1-0")
    assert len(gallery) == 2


def test_it_is_there_when_opened_again(
    gallery: Gallery, address: str, key: bytes | None, compact: FaceEngine, astronaut: Array
) -> None:
    record = gallery.add("staff", astronaut, "u")
    gallery.close()
    gallery.close()
    with pytest.raises(facecore.InvalidParameter, match="closed") as closed:
        gallery.groups()
    assert isinstance(closed.value, GalleryUnusable)
    assert closed.value.code == "InvalidParameter"
    with Gallery(address, compact, read_only=True, key=key) as reader:
        assert reader.records() == [record]
        assert reader.search(astronaut)[0].face_id == record.face_id
        with pytest.raises(facecore.GalleryLocked, match="read_only"):
            reader.add("staff", astronaut, "another")
        assert [group.name for group in reader.groups()] == ["staff", ODD]


def test_another_pack_is_refused(
    gallery: Gallery,
    address: str,
    key: bytes | None,
    compact: FaceEngine,
    mobilefacenet: FaceEngine,
) -> None:
    gallery.close()
    with pytest.raises(facecore.ContractMismatch, match=r"compact.*mobilefacenet"):
        Gallery(address, mobilefacenet, key=key)


def test_nothing_to_read(address: str, compact: FaceEngine) -> None:
    with pytest.raises(facecore.InvalidParameter, match="there is no gallery"):
        Gallery(address, compact, read_only=True)


def test_the_index_can_be_built_before_the_first_search(gallery: Gallery) -> None:
    gallery.warmup()
    assert gallery.stats().index == "exact"
