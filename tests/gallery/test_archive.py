"""Export and load groups: a round trip on any kind of gallery, and damaged files refused."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from templates import DIMENSION

import facecore
from facecore import FaceEngine, Gallery
from facecore.gallery import archive
from facecore.gallery.archive import Moved, export_groups, load_groups

Array = np.ndarray[Any, Any]
GROUPS = ("staff", "it's \"odd\\ \u202e\U0001f600", "empty")


def fill(gallery: Gallery, engine: FaceEngine, count: int) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(count, engine.pack.embedder.output.dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    start = datetime(2020, 1, 1, tzinfo=UTC)
    for name in GROUPS:
        gallery.create_group(name, title=f"T {name}", description="two\nlines")
    for name, part in (("staff", slice(0, count // 2)), (GROUPS[1], slice(count // 2, count))):
        numbers = range(count)[part]
        gallery.add_templates(
            name,
            vectors[part],
            [f"{name} {i % 5}" for i in numbers],
            contract=engine.contract_id,
            quality=[None if i % 3 else 100 / (i + 1) for i in numbers],
            origin=["AUTO" if i % 2 else "MANUAL" for i in numbers],
            created=[start + timedelta(microseconds=i) for i in numbers],
        )


def content(gallery: Gallery) -> list[Any]:
    """Return everything that a load keeps."""
    groups = [(g.name, g.title, g.description, g.size) for g in gallery.groups()]
    faces = [
        (r.group, r.face_id, r.user_id, r.quality, r.origin, r.created, vector.tobytes())
        for group in gallery.groups()
        for records, vectors in gallery.templates(group.name)
        for r, vector in zip(records, vectors, strict=True)
    ]
    return [groups, faces]


@pytest.fixture
def gallery(tmp_path: Path, compact: FaceEngine) -> Iterator[Gallery]:
    with Gallery(tmp_path / "a.gallery", compact) as made:
        fill(made, compact, 30)
        yield made


@pytest.fixture
def file(gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(archive, "_BATCH", 4)
    path = tmp_path / "out.jsonl"
    assert export_groups(gallery, path) == Moved(3, 30)
    return path


@pytest.fixture
def target(tmp_path: Path, compact: FaceEngine) -> Iterator[Gallery]:
    with Gallery(tmp_path / "b.gallery", compact) as made:
        yield made


def test_a_gallery_moves_to_milvus_and_back(
    gallery: Gallery, file: Path, target: Gallery, tmp_path: Path, compact: FaceEngine
) -> None:
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    back = tmp_path / "back.jsonl"
    with Gallery("milvus+" + (tmp_path / "a.db").as_uri(), compact) as remote:
        assert load_groups(remote, file) == Moved(3, 30)
        assert content(remote) == content(gallery)
        export_groups(remote, back)
    assert back.read_bytes() == file.read_bytes()
    load_groups(target, back)
    assert content(target) == content(gallery)


def test_some_groups(gallery: Gallery, target: Gallery, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    assert export_groups(gallery, str(path), ["empty", "staff", "empty"]) == Moved(2, 15)
    assert load_groups(target, str(path)) == Moved(2, 15)
    assert [group.name for group in target.groups()] == ["empty", "staff"]
    with pytest.raises(facecore.GroupNotFound):
        export_groups(gallery, path, ["staff", "nobody"])
    assert load_groups(target, path) == Moved(2, 15, present=15)  # the file is unchanged


def test_a_load_that_was_cut_short_is_completed(
    gallery: Gallery, file: Path, target: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, calls = target.add_templates, []

    def fail(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise facecore.GalleryNotWritable("the disk is full")
        return add(*arguments, **options)

    monkeypatch.setattr(target, "add_templates", fail)
    with pytest.raises(facecore.GalleryNotWritable):
        load_groups(target, file)
    assert len(target) == 8
    assert load_groups(target, file) == Moved(3, 30, present=8)
    assert content(target) == content(gallery)


def test_an_export_that_fails_leaves_the_old_file(
    gallery: Gallery, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def fail(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery, "templates", fail)
    with pytest.raises(KeyboardInterrupt):
        export_groups(gallery, file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.glob(".*")] == []


def test_another_pack_is_refused(file: Path, tmp_path: Path, mobilefacenet: FaceEngine) -> None:
    with (
        Gallery(tmp_path / "m.gallery", mobilefacenet) as other,
        pytest.raises(facecore.ContractMismatch, match=r"compact.*mobilefacenet"),
    ):
        load_groups(other, file)


def sealed(lines: list[bytes]) -> bytes:
    """Join the lines; the last one gets the hash of all lines before it."""
    end = json.loads(lines[-1])
    end["sha256"] = hashlib.sha256(b"".join(lines[:-1])).hexdigest()
    return b"".join(lines[:-1]) + json.dumps(end).encode() + b"\n"


def change(**new: Any) -> Any:
    def apply(line: bytes) -> bytes:
        row = json.loads(line) | new
        return json.dumps({k: v for k, v in row.items() if v is not ...}).encode() + b"\n"

    return apply


@pytest.mark.parametrize(
    ("number", "edit", "match"),
    [
        (0, change(format="x"), "line 1: facecore group export did not write"),
        (0, change(version=2), "this facecore reads 1"),
        (0, change(dimension=127), "dimension"),
        (0, change(more=1), "unknown"),
        (0, lambda line: b"\x80\n", "line 1: it is not JSON"),
        (0, lambda line: b"[]\n", "not a JSON object"),
        (0, lambda line: b"[" * 100_000 + b"\n", "not JSON"),
        (0, lambda line: b" " * 300_000, "too long"),
        (1, change(group="a\nb"), "control character"),
        (1, change(group="x" * 65), "65 characters"),
        (1, change(title=3), "title"),
        (1, lambda line: b"", "neither a group nor a face"),
        (1, lambda line: line + line, "is repeated"),
        (2, change(user_id=""), "up to line .*user_id"),
        (2, change(user_id="\ud800"), "user_id"),
        (2, change(user_id=None), "user_id"),
        (2, change(face_id="A" * 32), "face_id"),
        (2, change(quality=float("nan")), "not JSON"),
        (2, change(quality=101), "quality"),
        (2, change(quality="1"), "quality"),
        (2, change(origin="X"), "origin"),
        (2, change(created="2020-01-01"), "created"),
        (2, change(created=5), "argument"),
        (2, change(template="*"), "template|base64|character"),
        (2, change(template="AAAA"), f"does not have {DIMENSION} numbers"),
        (2, change(template=base64.b64encode(bytes(4 * DIMENSION)).decode()), "length 0"),
        (2, change(template=None), "argument"),
        (2, change(template=...), "neither a group nor a face"),
        (2, lambda line: line + line, "the same"),
        (2, lambda line: b"", "do not match"),
        (-1, change(faces=29), "do not match"),
        (-1, change(groups=2), "do not match"),
        (-1, lambda line: b"", "is cut off"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_changed(
    file: Path, target: Gallery, number: int, edit: Any, match: str
) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    lines[number] = edit(lines[number])
    file.write_bytes(sealed(lines) if lines[-1] else b"".join(lines))
    with pytest.raises(facecore.FacecoreError, match=match) as caught:
        load_groups(target, file)
    assert caught.type in (facecore.ArchiveCorrupt, facecore.InvalidParameter)
    assert target.groups() == []


def test_a_face_id_that_comes_twice(file: Path, target: Gallery) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines]
    faces = [number for number, row in enumerate(rows) if "face_id" in row]
    for face_id in (rows[faces[0]]["face_id"], "ab" * 8 + "00" * 8):
        for number in (faces[0], faces[-1]):  # of two groups
            lines[number] = json.dumps({**rows[number], "face_id": face_id}).encode() + b"\n"
        file.write_bytes(sealed(lines))
        with pytest.raises(facecore.ArchiveCorrupt, match=f"1 face ids are repeated.*{face_id}"):
            load_groups(target, file)
        assert target.groups() == []


def test_a_file_that_cannot_be_read(tmp_path: Path, target: Gallery) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(facecore.InvalidParameter, match="cannot be read"):
            load_groups(target, path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_goes_unnoticed(file: Path, target: Gallery, data: st.DataObject) -> None:
    """Flipped, cut, doubled or inserted bytes raise a facecore error and store nothing."""
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    upto = data.draw(st.integers(at, min(len(whole), at + 400)))
    middle = data.draw(
        st.one_of(
            st.binary(max_size=8),
            st.just(whole[at:upto] * 2),
            st.just(
                bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))]) + whole[at + 1 : upto]
            ),
        )
    )
    damaged = data.draw(st.sampled_from([whole[:at] + middle + whole[upto:], whole[:at]]))
    if damaged == whole:
        return
    path = file.with_name("damaged.jsonl")
    path.write_bytes(damaged)
    with pytest.raises(
        (facecore.ArchiveCorrupt, facecore.InvalidParameter, facecore.ContractMismatch)
    ):
        load_groups(target, path)
    assert target.groups() == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_has_the_right_hash_is_checked_too(
    file: Path, target: Gallery, data: st.DataObject
) -> None:
    """Any values in any line, under a correct hash, are stored unchanged or refused."""
    lines = file.read_bytes().splitlines(keepends=True)
    number = data.draw(st.integers(0, 6))
    row = json.loads(lines[number])
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=3,
    )
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(values)
    lines[number] = json.dumps(row).encode() + b"\n"
    path = file.with_name("odd.jsonl")
    path.write_bytes(sealed(lines))
    try:
        load_groups(target, path)
    except facecore.FacecoreError:
        assert target.groups() == []
    else:
        assert len(target) == 30
        for group in target.groups():
            target.delete_group(group.name)
