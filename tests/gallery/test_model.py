"""Compare a gallery with a dictionary over random histories that reopen the gallery."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)
from templates import TemplateEngine, template

from facecore import FaceRecord, Gallery, GroupExists, GroupNotFound, UserExists
from facecore.gallery.sqlite import hnsw_builder, saved_index

pytestmark = pytest.mark.usefixtures("no_sync")
GROUPS = st.sampled_from(["a", "b", "ü"])
USERS = st.sampled_from(["u1", "u2", "u3"])


class GalleryMachine(RuleBasedStateMachine):
    """Another kind of gallery overrides `address` and `clean_up`."""

    index = "exact"
    key: bytes | None = None
    tokens = Bundle("tokens")
    face_ids = Bundle("face_ids")

    def address(self) -> str:
        self.folder = Path(tempfile.mkdtemp())
        return str(self.folder / "a.gallery")

    def clean_up(self) -> None:
        shutil.rmtree(self.folder)

    @initialize()
    def start(self) -> None:
        self.engine: Any = TemplateEngine()
        self.where = self.address()
        self.groups: set[str] = set()
        self.faces: dict[str, tuple[FaceRecord, str]] = {}  # by face id: its record and token
        self.gone: set[str] = set()
        self.count = 0
        self.open()

    def open(self) -> None:
        self.gallery = Gallery(
            self.where,
            self.engine,
            index=self.index,  # type: ignore[arg-type]
            key=self.key,
        )

    def teardown(self) -> None:
        self.gallery.close()
        self.clean_up()

    def new_tokens(self, count: int) -> list[str]:
        self.count += count
        return [f"t{i}" for i in range(self.count - count, self.count)]

    def of(self, group: str, user: str | None = None) -> list[str]:
        return [
            face_id
            for face_id, (record, _) in self.faces.items()
            if record.group == group and user in (None, record.user_id)
        ]

    def forget(self, face_ids: list[str]) -> None:
        self.gone |= {self.faces.pop(face_id)[1] for face_id in face_ids}

    @rule(group=GROUPS)
    def create_group(self, group: str) -> None:
        if group in self.groups:
            with pytest.raises(GroupExists):
                self.gallery.create_group(group)
        else:
            self.gallery.create_group(group)
            self.groups.add(group)

    @rule(group=GROUPS)
    def delete_group(self, group: str) -> None:
        if group not in self.groups:
            with pytest.raises(GroupNotFound):
                self.gallery.delete_group(group)
            return
        assert self.gallery.delete_group(group) == len(self.of(group))
        self.forget(self.of(group))
        self.groups.remove(group)

    @rule(target=face_ids, group=GROUPS, users=st.lists(USERS, min_size=1, max_size=12))
    def add(self, group: str, users: list[str]) -> list[str]:
        tokens = self.new_tokens(len(users))
        vectors = np.stack([template(token) for token in tokens])
        contract = self.gallery.contract_id
        if group not in self.groups:
            with pytest.raises(GroupNotFound):
                self.gallery.add_templates(group, vectors, users, contract=contract)
            return []
        records = self.gallery.add_templates(group, vectors, users, contract=contract)
        self.faces |= {r.face_id: (r, t) for r, t in zip(records, tokens, strict=True)}
        return [record.face_id for record in records]

    @rule(group=GROUPS, user=USERS, how=st.sampled_from(["add", "refuse", "replace"]))
    def add_one(self, group: str, user: str, how: Any) -> None:
        if group not in self.groups:
            return
        (token,) = self.new_tokens(1)
        there = self.of(group, user)
        if how == "refuse" and there:
            with pytest.raises(UserExists):
                self.gallery.add(group, template(token), user, on_existing=how)
            return
        record = self.gallery.add(group, template(token), user, on_existing=how)
        if how == "replace":
            self.forget(there)
        self.faces[record.face_id] = record, token

    @rule(group=GROUPS, user=USERS)
    def remove_user(self, group: str, user: str) -> None:
        if group in self.groups:
            assert self.gallery.remove(group, user_id=user) == len(self.of(group, user))
            self.forget(self.of(group, user))

    @rule(group=GROUPS, added=consumes(face_ids))
    def remove_faces(self, group: str, added: list[str]) -> None:
        for face_id in added[::2]:
            if group in self.groups:
                there = face_id in self.of(group)
                assert self.gallery.remove(group, face_id=face_id) == there
                self.forget([face_id] if there else [])

    @rule()
    def reopen(self) -> None:
        self.gallery.close()
        self.open()

    @rule()
    def compact(self) -> None:
        self.gallery.compact()

    @rule(groups=st.none() | st.lists(GROUPS, unique=True), limit=st.integers(1, 30))
    def search(self, groups: list[str] | None, limit: int) -> None:
        probe = template("probe") + template(f"t{self.count // 2}")
        probe = (probe / np.linalg.norm(probe)).astype(np.float32)
        if groups is not None and not self.groups.issuperset(groups):
            with pytest.raises(GroupNotFound):
                self.gallery.search(probe, groups, limit)  # type: ignore[arg-type]
            return
        expected = sorted(
            (-float(template(token).astype(np.float64) @ probe), record.id, record.face_id)
            for record, token in self.faces.values()
            if groups is None or record.group in groups
        )
        found = self.gallery.search(probe, groups, limit)  # type: ignore[arg-type]
        assert [match.face_id for match in found] == [e[2] for e in expected[:limit]]
        for match, (similarity, _, _) in zip(found, expected, strict=False):
            assert match.similarity == pytest.approx(-similarity, abs=1e-6)

    @precondition(lambda self: hasattr(self, "gallery"))
    @invariant()
    def records(self) -> None:
        every = sorted((record for record, _ in self.faces.values()), key=lambda r: r.id)
        assert self.gallery.records(limit=10_000) == every
        assert len(self.gallery) == len(every)
        sizes = {group.name: group.size for group in self.gallery.groups()}
        assert sizes == {name: len(self.of(name)) for name in self.groups}
        for records, vectors in self.gallery.templates(batch_size=7):
            for record, vector in zip(records, vectors, strict=True):
                np.testing.assert_array_equal(vector, template(self.faces[record.face_id][1]))


class FolderMachine(GalleryMachine):
    """A folder is also erased: no file holds a removed template."""

    @precondition(lambda self: hasattr(self, "gallery"))
    @invariant()
    def erased(self) -> None:
        files = b""
        for here, _, names in os.walk(self.where):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # the HNSW thread is saving its index
                    files += Path(here, name).read_bytes()
        assert [token for token in self.gone if template(token).tobytes()[64:96] in files] == []


class EncryptedMachine(FolderMachine):
    """An encrypted folder holds no template, and no header of SQLite."""

    key = bytes(range(32))

    @precondition(lambda self: hasattr(self, "gallery"))
    @invariant()
    def erased(self) -> None:
        files = b"".join(p.read_bytes() for p in Path(self.where).rglob("*") if p.is_file())
        assert b"SQLite format" not in files
        tokens = [*self.gone, *(token for _, token in self.faces.values())]
        assert [token for token in tokens if template(token).tobytes()[64:72] in files] == []


@pytest.mark.parametrize("index", ["exact", "hnsw"])
@pytest.mark.parametrize("machine", [FolderMachine, EncryptedMachine])
def test_histories(
    monkeypatch: pytest.MonkeyPatch, index: str, machine: type[GalleryMachine]
) -> None:
    if machine is EncryptedMachine:
        pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
    monkeypatch.setattr(machine, "index", index)
    for module in (saved_index, hnsw_builder):  # save the index of the smallest gallery
        monkeypatch.setattr(module, "WORTHWHILE", 1)
    run = machine.TestCase
    run.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
    run("runTest").runTest()
