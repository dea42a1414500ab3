"""Encrypted archives load whole with the right key, or raise an error and store nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import template

from facecore import ArchiveCorrupt, Gallery, InvalidParameter, WrongKey
from facecore.gallery.archive import export_groups, load_groups
from facecore.gallery.sealed import SealedReader, SealedWriter

pytest.importorskip("cryptography", reason="needs the extra encryption")
pytestmark = pytest.mark.usefixtures("no_sync")

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
PIECE, TAG, HEAD = 65_536, 16, 64


def sealed(data: bytes, key: bytes = KEY) -> bytes:
    stream = io.BytesIO()
    writer = SealedWriter(stream, key)
    for at in range(0, len(data), 1000):
        writer.write(data[at : at + 1000])
    writer.close()
    return stream.getvalue()


def opened(data: bytes, key: bytes = KEY) -> bytes:
    return io.BufferedReader(SealedReader(io.BytesIO(data), key)).read()


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 200_000])
def test_what_went_in_comes_out(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    found = sealed(data)
    assert len(found) == HEAD + size + TAG * (size // PIECE + 1)
    assert opened(found) == data
    assert sealed(data)[16:] != found[16:]  # another salt, so another key
    with pytest.raises(WrongKey):
        opened(found, OTHER)


def test_pieces_cannot_be_changed_moved_or_cut_off() -> None:
    found = sealed(bytes(3 * PIECE + 5))
    body, size = found[HEAD:], PIECE + TAG
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    other = sealed(bytes(3 * PIECE + 5))[HEAD:]
    damaged = {
        "moved": pieces[1] + pieces[0] + pieces[2] + pieces[3],
        "repeated": pieces[0] + pieces[0] + pieces[2] + pieces[3],
        "left out": pieces[0] + pieces[2] + pieces[3],
        "last piece cut off": b"".join(pieces[:3]),
        "last piece at the front": pieces[3],
        "of another file": other[:size] + b"".join(pieces[1:]),
        "cut within": body[:-1],
        "cut to less than a tag": body[: 3 * size + 7],
        "nothing": b"",
        "more": body + b"x",
    }
    for at in (0, 70, size, 3 * size + 3, len(body) - 1):
        flipped = bytearray(body)
        flipped[at] ^= 4
        damaged[f"flipped at {at}"] = bytes(flipped)
    for what, data in damaged.items():
        with pytest.raises(ArchiveCorrupt, match=r"piece \d is damaged or cut off"):
            print(what, len(opened(found[:HEAD] + data)))
    for at in range(16, HEAD):
        flipped = bytearray(found)
        flipped[at] ^= 1
        with pytest.raises(WrongKey):
            opened(bytes(flipped))
    with pytest.raises(ArchiveCorrupt, match="header is cut off"):
        opened(found[: HEAD - 1])


def test_an_archive_under_a_key(filled: Gallery, templates_engine: Any, tmp_path: Path) -> None:
    users = [f"user-{i}" for i in range(500)]
    vectors = np.stack([template(user) for user in users])
    filled.add_templates("staff", vectors, users, contract=filled.contract_id)
    plain, file = tmp_path / "plain", tmp_path / "sealed"
    export_groups(filled, plain)
    assert export_groups(filled, file, key=KEY).faces == 500
    data = file.read_bytes()
    assert opened(data) == plain.read_bytes()
    assert not [word for word in (b"user-", b"staff", b"contract", KEY) if word in data]
    with Gallery(tmp_path / "new", templates_engine) as new:
        for key in (None, OTHER):
            with pytest.raises(WrongKey, match="sealed: the file is encrypted") as caught:
                load_groups(new, file, key=key)
            assert "--archive-key-file" in caught.value.hint
        for cut in (data[:-1], data[: HEAD + PIECE + TAG], data[:HEAD], data[:20]):
            file.write_bytes(cut)
            with pytest.raises(ArchiveCorrupt):
                load_groups(new, file, key=KEY)
        assert new.groups() == []
        file.write_bytes(data)
        assert load_groups(new, file, key=KEY.hex()).faces == 500
        assert load_groups(new, file, key=KEY).present == 500
        export_groups(new, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == plain.read_bytes()


def test_an_encrypted_gallery_exports_under_its_key(
    folder: Path, templates_engine: Any, tmp_path: Path
) -> None:
    pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
    file = tmp_path / "archive"
    with Gallery(folder, templates_engine, key=KEY) as gallery:
        gallery.create_group("staff")
        gallery.add("staff", template("t"), "somebody")
        export_groups(gallery, file)
        assert b"somebody" not in file.read_bytes()
        assert load_groups(gallery, file).present == 1
        export_groups(gallery, file, key=OTHER)
        with pytest.raises(WrongKey):
            load_groups(gallery, file)
        assert load_groups(gallery, file, key=OTHER).present == 1
        export_groups(gallery, file, plain=True)
        assert b"somebody" in file.read_bytes()
        assert load_groups(gallery, file).present == 1  # a plain file needs no key
        with pytest.raises(InvalidParameter, match="key and plain"):
            export_groups(gallery, file, key=OTHER, plain=True)
