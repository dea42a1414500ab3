"""A gallery's key is changed completely or not at all."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import template

from facecore import (
    Gallery,
    GalleryCorrupt,
    GalleryLocked,
    GalleryNotWritable,
    InvalidParameter,
    WrongKey,
)
from facecore.gallery import rekey
from facecore.gallery.sqlite import folder as folders

pytest.importorskip("sqlcipher3", reason="needs the extra encryption")

A, B = bytes(range(32)), bytes(range(1, 33))
REPO = Path(__file__).parents[2]
KILLS = int(os.environ.get("FACECORE_REKEY_KILLS", "6"))


def fill(folder: Path, engine: Any, key: bytes | None, count: int = 300) -> None:
    with Gallery(folder, engine, key=key) as gallery:
        gallery.create_group("staff", title="title")
        gallery.create_group("visitors")
        gallery.delete_group("visitors")
        users = [f"user-{i}" for i in range(count)]
        vectors = np.stack([template(user) for user in users])
        gallery.add_templates("staff", vectors, users, contract=gallery.contract_id)
        gallery.remove("staff", user_id="user-7")


def everything(folder: Path, engine: Any, key: bytes | None) -> Any:
    with Gallery(folder, engine, key=key, read_only=True) as gallery:
        faces = [
            (r, v.tobytes()) for rs, vs in gallery.templates() for r, v in zip(rs, vs, strict=True)
        ]
        return gallery.groups(), faces


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"gallery.db-wal", "gallery.db-shm"}


@pytest.mark.parametrize(("old", "new"), [(None, A), (A, B), (A, None)])
def test_everything_comes_along(
    folder: Path, templates_engine: Any, old: bytes | None, new: bytes | None
) -> None:
    fill(folder, templates_engine, old)
    before = everything(folder, templates_engine, old)
    assert rekey(folder, key=old, new_key=new) == 299
    assert rekey(folder, key=old, new_key=new) == 299  # again, as after an interruption
    assert names(folder) == {"gallery.db", "writer.lock"}
    with pytest.raises(WrongKey):
        Gallery(folder, templates_engine, key=old)
    assert everything(folder, templates_engine, new) == before
    with Gallery(folder, templates_engine, key=new) as gallery:
        last = before[1][-1][0].id
        assert gallery.add("staff", template("new"), "new").id == last + 1  # ids continue
        assert gallery.create_group("again").id == 3
        gallery.compact()
    if os.name == "posix":
        assert (folder / "gallery.db").stat().st_mode & 0o777 == 0o600


def test_an_old_plain_gallery_is_encrypted(templates_engine: Any, tmp_path: Path) -> None:
    """Its saved indexes are deleted too, because they hold the vectors."""
    golden = REPO / "tests/data/v0.1.0"
    folder = shutil.copytree(golden / "gallery", tmp_path / "a.gallery")
    for kind in ("exact", "hnsw"):
        (folder / "index" / kind / "000001").mkdir(parents=True)
        (folder / "index" / kind / "000001" / "vectors.npy").write_bytes(b"plain vectors")
    assert rekey(folder, new_key=A) == 38
    assert names(folder) == {"gallery.db", "writer.lock"}
    with pytest.raises(WrongKey):
        Gallery(folder, templates_engine)


def test_what_is_refused(folder: Path, templates_engine: Any) -> None:
    with pytest.raises(InvalidParameter, match="there is no gallery"):
        rekey(folder, new_key=A)
    assert not folder.exists()
    fill(folder, templates_engine, A)
    for old, new in ((B, None), (None, B), (B, bytes(32))):
        with pytest.raises(WrongKey):
            rekey(folder, key=old, new_key=new)
    for key in (A, None):
        with pytest.raises(InvalidParameter, match="the new key is the old one"):
            rekey(folder, key=key, new_key=key)
    with pytest.raises(InvalidParameter, match="is not 32 bytes"):
        rekey(folder, key=A, new_key=b"short")
    assert len(everything(folder, templates_engine, A)[1]) == 299


@pytest.mark.parametrize("read_only", [False, True])
def test_nobody_may_have_it_open(
    folder: Path, templates_engine: Any, read_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facecore.gallery.sqlite.connection.PATIENCE", 0.2)
    fill(folder, templates_engine, A)
    with Gallery(folder, templates_engine, key=A, read_only=read_only) as gallery:
        with pytest.raises(GalleryLocked, match="is open for"):
            rekey(folder, key=A, new_key=B)
        assert gallery.search(template("user-3"), limit=1)[0].user_id == "user-3"
    assert rekey(folder, key=A, new_key=B) == 299


def test_damage_is_not_copied(folder: Path, templates_engine: Any) -> None:
    fill(folder, templates_engine, None)
    data = (folder / "gallery.db").read_bytes()
    flipped = bytearray(template("user-5").tobytes())
    flipped[9] ^= 1
    (folder / "gallery.db").write_bytes(data.replace(template("user-5").tobytes(), flipped))
    with pytest.raises(GalleryCorrupt, match="its key was not changed"):
        rekey(folder, new_key=A)
    assert names(folder) == {"gallery.db", "writer.lock"}
    with Gallery(folder, templates_engine) as gallery:
        assert gallery.search(template("user-3"), limit=1)[0].user_id == "user-3"


def test_what_a_crash_left_goes_at_the_next_opening(folder: Path, templates_engine: Any) -> None:
    fill(folder, templates_engine, A)
    folders.partial_copy(folder).write_bytes(b"half of a copy")
    with Gallery(folder, templates_engine, key=A, read_only=True):
        assert folders.partial_copy(folder).exists()  # another rekey may be running
    with Gallery(folder, templates_engine, key=A):
        pass
    assert names(folder) == {"gallery.db", "writer.lock"}


CHILD = """
import sys
from facecore.gallery import rekey
{setup}
print("ready", flush=True)
sys.stdin.readline()
try:
    print(rekey({folder!r}, key=bytes.fromhex({old!r}), new_key=bytes.fromhex({new!r})))
except Exception as error:
    print(type(error).__name__)
"""


def child(folder: Path, old: bytes, new: bytes, setup: str = "") -> subprocess.Popen[str]:
    code = CHILD.format(folder=str(folder), old=old.hex(), new=new.hex(), setup=setup)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_any_moment(folder: Path, templates_engine: Any) -> None:
    """The gallery is whole under one of the two keys, and the same call completes the change."""
    fill(folder, templates_engine, A, 1000)
    before = everything(folder, templates_engine, A)
    start = time.perf_counter()
    assert rekey(folder, key=A, new_key=B) == 999
    duration = time.perf_counter() - start
    old, new = B, A
    rng = random.Random(0)
    for _ in range(KILLS):
        process = child(folder, old, new)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(rng.uniform(0, 1.3 * duration))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = []
        for key in (old, new):
            try:
                found.append(everything(folder, templates_engine, key) == before)
            except WrongKey:
                continue
        assert found == [True]
        assert rekey(folder, key=old, new_key=new) == 999
        assert names(folder) == {"gallery.db", "writer.lock"}
        assert everything(folder, templates_engine, new) == before
        old, new = new, old


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_full_disk(folder: Path, templates_engine: Any) -> None:
    fill(folder, templates_engine, A)
    limit = (folder / "gallery.db").stat().st_size // 2
    setup = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
"""
    out, _ = child(folder, A, B, setup).communicate("\n")
    assert out.strip() == GalleryNotWritable.__name__
    assert names(folder) == {"gallery.db", "writer.lock"}
    assert len(everything(folder, templates_engine, A)[1]) == 299


@pytest.mark.parametrize("broken", ["make_private", "sync", "os.replace"])
def test_a_failing_disk(
    folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    fill(folder, templates_engine, A)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(f"facecore.gallery.sqlite.rekey.{broken}", fail)
        with pytest.raises(GalleryNotWritable, match=os.strerror(errno.EIO)):
            rekey(folder, key=A, new_key=B)
    assert names(folder) == {"gallery.db", "writer.lock"}
    assert len(everything(folder, templates_engine, A)[1]) == 299
    assert rekey(folder, key=A, new_key=B) == 299
