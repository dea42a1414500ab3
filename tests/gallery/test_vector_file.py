"""Files of vectors: damage is an error, and files without checksums still load."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from templates import template

from facecore import ArchiveCorrupt, ContractMismatch, Gallery, InvalidParameter
from facecore.collections.embedding import _writer
from facecore.gallery.vector_file import load_vectors, vector_schema

pytestmark = pytest.mark.usefixtures("no_sync")

USERS = [f"user-{i}" for i in range(6)]


@pytest.fixture
def gallery(folder: Path, templates_engine: Any) -> Iterator[Gallery]:
    with Gallery(folder, templates_engine) as made:
        yield made


@pytest.fixture
def table(templates_engine: Any) -> Any:
    rows = [
        {
            "path": f"/people/{user}/1.jpg",
            "sha256": f"{number:064x}",
            "face": 0,
            "box": [0.0] * 4,
            "landmarks": [0.0] * 10,
            "confidence": 1.0,
            "quality": 10.0 + number,
            "vector": template(user),
        }
        for number, user in enumerate(USERS)
    ]
    return pa.Table.from_pylist(rows, vector_schema(templates_engine))


def is_right(gallery: Gallery, group: str) -> bool:
    ((records, vectors),) = gallery.templates(group)
    return (
        [record.user_id for record in records] == USERS
        and [record.quality for record in records] == [10.0 + i for i in range(len(USERS))]
        and np.array_equal(vectors, np.stack([template(user) for user in USERS]))
    )


def test_no_flipped_bit_is_loaded(gallery: Gallery, table: Any, tmp_path: Path) -> None:
    path, rng = tmp_path / "vectors.parquet", random.Random(3)
    with path.open("wb") as stream, _writer(pq, stream, table.schema) as writer:
        writer.write_table(table)
    whole = path.read_bytes()
    loaded, messages = 0, []
    for number in range(100):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            load_vectors(gallery, path, f"{number}")
        except (ArchiveCorrupt, ContractMismatch, InvalidParameter) as error:
            messages.append(error.message)
        else:
            assert is_right(gallery, f"{number}")
            loaded += 1
    assert loaded > 5  # flips in columns and statistics that are not read
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)


def test_a_file_without_checksums(gallery: Gallery, table: Any, tmp_path: Path) -> None:
    path = tmp_path / "vectors.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False)
    load_vectors(gallery, path, "staff")
    assert is_right(gallery, "staff")
    path.write_bytes(path.read_bytes().replace(b"/user-3/", b"/user\xff3/"))
    with pytest.raises(ArchiveCorrupt, match=r"cannot be read: .*utf-8.*embed again"):
        load_vectors(gallery, path, "damaged")


@pytest.mark.parametrize("name", ["missing.parquet", "."])
def test_what_is_no_file(gallery: Gallery, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match="cannot be read"):
        load_vectors(gallery, tmp_path / name, "staff")
