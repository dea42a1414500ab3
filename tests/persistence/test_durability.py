"""Changes are on the disk when a method returns; a failing disk raises a typed error."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import template

from facecore import Gallery, GalleryNotWritable
from facecore.gallery.archive import export_groups
from facecore.gallery.sqlite.connection import changing

REPO = Path(__file__).resolve().parents[2]


def test_every_commit_is_synced(folder: Path, templates_engine: Any) -> None:
    with Gallery(folder, templates_engine) as gallery:
        writer = gallery._backend._store._writer  # type: ignore[attr-defined]
        settings = {
            name: writer.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
        }
    assert settings == {
        "journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1,
    }  # fmt: skip


def crash(tmp_path: Path, *options: str) -> Any:
    """Run `python -m benchmarks crash`; FACECORE_KILLS sets the number of kills."""
    kills = os.environ.get("FACECORE_KILLS", "20")
    code = (
        f"import runpy, sys; sys.path.append({str(REPO)!r});"
        "runpy.run_module('benchmarks', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "crash", "--kills", kills, *options],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["problems"] == []
    assert result["kills"] == int(kills)
    assert result["acknowledged"] > 0
    return result


def test_kills(tmp_path: Path) -> None:
    crash(tmp_path)


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs a C compiler on Linux"
)
def test_kills_on_a_failing_disk(tmp_path: Path) -> None:
    """One in 40 writes and syncs fails: an operation works, or raises and changes nothing."""
    assert crash(tmp_path, "--faults", "40")["failed"] > 0


def test_an_error_that_ends_its_transaction(tmp_path: Path) -> None:
    """The rollback does not hide the error."""

    def fail(database: sqlite3.Connection) -> None:
        with changing(database):
            database.execute("ROLLBACK")
            raise OSError("on purpose")

    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as database:
        with pytest.raises(OSError, match="on purpose"):
            fail(database)
        with changing(database):
            database.execute("CREATE TABLE t (a)")
        assert database.execute("SELECT count(*) FROM t").fetchone() == (0,)


CHILD = """
import sys
sys.path.append({tests!r})
import numpy as np
from templates import TemplateEngine, template
from facecore import FacecoreError, Gallery
{setup}
try:
    with Gallery({folder!r}, TemplateEngine(), read_only={read_only}) as gallery:
        {work}
except FacecoreError as error:
    print(error.code)
"""


def in_child(folder: Path, work: str, setup: str = "", read_only: bool = False) -> str:
    code = CHILD.format(
        tests=str(REPO / "tests"), folder=str(folder), setup=setup, work=work, read_only=read_only
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_full_disk(folder: Path, templates_engine: Any) -> None:
    """The change fails with a typed error and leaves the earlier content unchanged."""
    with Gallery(folder, templates_engine) as gallery:
        gallery.create_group("staff")
        gallery.add("staff", template("t"), "u")
    setup = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
"""
    work = """
        for i in range(1000):
            vectors = np.stack([template(f"{i}-{j}") for j in range(50)])
            gallery.add_templates("staff", vectors, ["v"] * 50, contract=gallery.contract_id)
"""
    assert in_child(folder, work, setup) == "GalleryNotWritable"
    with Gallery(folder, templates_engine) as gallery:
        assert len(gallery) % 50 == 1
        assert gallery.count(user_id="v") == len(gallery) - 1
        assert gallery.search(template("t"), limit=1)[0].user_id == "u"
        gallery.add("staff", template("s"), "s")


@pytest.mark.skipif(sys.platform == "win32", reason="needs another user, or no rights")
def test_a_folder_that_nobody_may_write_to(templates_engine: Any) -> None:
    # Not in pytest's folder, which other users may not enter.
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        refuse_writing(Path(place) / "a.gallery", templates_engine)


def refuse_writing(folder: Path, templates_engine: Any) -> None:
    with Gallery(folder, templates_engine) as gallery:
        gallery.create_group("staff")
        gallery.add("staff", template("t"), "u")
    (folder / "gallery.db").chmod(0o644)
    setup = ""
    if os.geteuid() == 0:  # root may write everywhere; the child drops its rights once it is warm
        setup = """
import os, tempfile
warm = tempfile.TemporaryDirectory()
with Gallery(warm.name, TemplateEngine()) as gallery:
    gallery.create_group("g")
    gallery.add("g", template("t"), "u")
    gallery.search(template("t"))
warm.cleanup()
os.seteuid(65534)
"""
    folder.chmod(0o555)
    found = 'print(gallery.search(template("t"))[0].user_id)'
    assert in_child(folder, found, setup, read_only=True) == "u"
    assert in_child(folder, found, setup) == "GalleryNotWritable"
    assert in_child(folder / "new", found, setup) == "GalleryNotWritable"
    folder.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be removed there")
@pytest.mark.parametrize(
    "lose",
    [
        lambda folder: shutil.rmtree(folder),
        lambda folder: folder.rename(folder.with_name("moved")),
        lambda folder: (folder / "gallery.db").unlink(),
        lambda folder: (folder / "gallery.db-wal").unlink(),
        lambda folder: (folder / "gallery.db-shm").unlink(),
        lambda folder: shutil.copytree(folder, folder.with_name("b")).rename(folder / "b"),
    ],
)
def test_a_folder_that_is_lost_while_it_is_open(
    folder: Path, templates_engine: Any, lose: Any
) -> None:
    """A change that would be lost is refused; none is acknowledged."""
    with Gallery(folder, templates_engine) as gallery:
        gallery.create_group("staff")
        gallery.add("staff", template("t"), "u")
        lose(folder)
        if (folder / "b").exists():  # replace only the file by a copy
            os.replace(folder / "b" / "gallery.db", folder / "gallery.db")
        changes = (
            lambda: gallery.add("staff", template("s"), "s"),
            lambda: gallery.remove("staff", user_id="u"),
            lambda: gallery.create_group("more"),
            lambda: gallery.delete_group("staff"),
        )
        for change in changes:
            with pytest.raises(GalleryNotWritable, match="removed or replaced"):
                change()


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_an_erasure_on_a_full_disk(folder: Path, templates_engine: Any) -> None:
    """The log of other changes makes room; the template is gone from every file."""
    with Gallery(folder, templates_engine) as gallery:
        gallery.create_group("staff")
        gallery.add("staff", template("t"), "u")
    setup = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
"""
    work = """
        try:
            for i in range(1000):
                gallery.update_group("staff", description=f"{i}")
        except FacecoreError as error:
            assert error.code == "GalleryNotWritable"
        print(gallery.remove("staff", user_id="u"), gallery.stats().erasure_pending)
"""
    assert in_child(folder, work, setup) == "1 False"
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert template("t").tobytes()[:64] not in files


@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
def test_only_the_owner_may_read(folder: Path, templates_engine: Any) -> None:
    """With any umask: folders 0700, files 0600, also while the gallery is open."""
    before = os.umask(0)
    try:
        with Gallery(folder, templates_engine, index="hnsw") as gallery:
            gallery.create_group("staff")
            vectors = np.stack([template(f"t{i}") for i in range(5_000)])
            users = [f"u{i}" for i in range(5_000)]
            gallery.add_templates("staff", vectors, users, contract=gallery.contract_id)
            gallery.compact()
            archive = folder.with_name("archive.jsonl")
            archive.write_bytes(b"")
            archive.chmod(0o644)
            export_groups(gallery, archive)
            found = [folder, archive, *folder.rglob("*")]
            wrong = [
                f"{path.name} {path.stat().st_mode & 0o777:o}"
                for path in found
                if path.stat().st_mode & 0o077
            ]
    finally:
        os.umask(before)
    assert {"gallery.db-wal", "gallery.db-shm", "writer.lock", "index"} <= {p.name for p in found}
    assert any(path.name == "vectors.f4" for path in found)
    assert wrong == []


def test_what_a_killed_export_left_is_removed(folder: Path, templates_engine: Any) -> None:
    archive = folder.with_name("an archive [1].jsonl")
    work = f"""
        gallery.create_group("staff")
        gallery.add("staff", template("t"), "u")
        import os
        from pathlib import Path
        from facecore.gallery.archive import export_groups
        gallery.templates = lambda *_: os._exit(0)
        export_groups(gallery, Path({str(archive)!r}))
"""
    in_child(folder, work)
    left = [path for path in folder.parent.iterdir() if ".tmp-" in path.name]
    assert len(left) == 1
    other = folder.parent / ".other.jsonl.tmp-1-abc"
    other.touch()
    with Gallery(folder, templates_engine) as gallery:
        export_groups(gallery, archive)
    assert {path.name for path in folder.parent.iterdir()} == {
        folder.name,
        archive.name,
        other.name,
    }
