"""A second opening in one process keeps the locks of the first one."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from templates import template

from facecore import Gallery, GalleryLocked, WrongKey
from facecore.gallery import rekey

pytestmark = pytest.mark.usefixtures("no_sync")

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))

# The last connection to close deletes the log, and only locks show it the others.
LAST_CLOSE = """
import sys
from importlib import import_module
path, driver, key = sys.argv[1:]
connection = import_module(driver).connect(path, isolation_level=None)
if key:
    connection.execute(f"PRAGMA key = \\"x'{key}'\\"")
    connection.execute("PRAGMA cipher_page_size = 8192")
connection.execute("SELECT count(*) FROM faces").fetchone()
connection.close()
"""


def open_in_another_process(folder: Path, key: bytes | None) -> None:
    driver = "sqlite3" if key is None else "sqlcipher3.dbapi2"
    arguments = [str(folder / "gallery.db"), driver, "" if key is None else key.hex()]
    subprocess.run([sys.executable, "-c", LAST_CLOSE, *arguments], check=True)


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("second", [None, KEY, OTHER], ids=["no key", "key", "other key"])
@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_other_processes_still_see_the_first(
    folder: Path,
    templates_engine: Any,
    key: bytes | None,
    second: bytes | None,
    read_only: bool,
) -> None:
    if key or second:
        pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
    with Gallery(folder, templates_engine, key=key) as gallery:
        gallery.create_group("staff")
        gallery.add("staff", template("a"), "a")
        right = second == key and read_only
        with nullcontext() if right else pytest.raises((WrongKey, GalleryLocked)):
            Gallery(folder, templates_engine, key=second, read_only=read_only).close()
        open_in_another_process(folder, key)
        assert (folder / "gallery.db-wal").exists()
        gallery.add("staff", template("b"), "b")
    with Gallery(folder, templates_engine, key=key) as gallery:
        assert len(gallery) == 2


@pytest.mark.parametrize(
    ("key", "new"),
    [(None, KEY), (KEY, OTHER), (KEY, None)],
    ids=["encrypt", "change", "decrypt"],
)
def test_rekey_refuses_a_gallery_that_this_process_reads(
    folder: Path, templates_engine: Any, key: bytes | None, new: bytes | None
) -> None:
    pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
    with Gallery(folder, templates_engine, key=key) as gallery:
        gallery.create_group("staff")
    with Gallery(folder, templates_engine, key=key, read_only=True) as reader:
        with pytest.raises(GalleryLocked):
            rekey(folder, key=key, new_key=new)
        assert len(reader) == 0
    assert rekey(folder, key=key, new_key=new) == 0
    with pytest.raises(WrongKey):
        Gallery(folder, templates_engine, key=key)
