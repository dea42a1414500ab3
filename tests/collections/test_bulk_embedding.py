"""Embed whole collections: one row per face, equal after a stop and on several workers."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facecore import FaceEngine, Gallery, cli
from facecore.collections import embed_pictures, embedding
from facecore.errors import (
    ArchiveCorrupt,
    ContractMismatch,
    InvalidParameter,
    MissingExtra,
)
from facecore.gallery.archive import Moved
from facecore.gallery.bulk_import import import_pictures
from facecore.gallery.vector_file import load_vectors
from facecore.images import Limits

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, astronaut: Array, hopper: Array) -> Path:
    """Eileen twice, Grace with Eileen in the background, a wall, and a file that is no picture."""
    root = tmp_path_factory.mktemp("people")
    both = np.hstack([cv2.resize(astronaut, (512, 600)), hopper])
    pictures = {"eileen/a.png": astronaut, "eileen/copy.png": astronaut, "grace/both.png": both}
    for name, pixels in {**pictures, "wall.png": np.full((200, 200, 3), 90, np.uint8)}.items():
        (root / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(root / name), pixels)
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return root


@pytest.fixture(scope="module")
def file(people: Path, compact: FaceEngine) -> Path:
    out = people.parent / "vectors.parquet"
    result = embed_pictures(compact, people, out, quality=True, row_group=2)
    assert (result.pictures, result.faces, result.resumed) == (5, 4, 0)
    assert result.refused == {"NoFaceDetected": 1, "UnreadableImage": 1}
    return out


def test_each_face_has_a_row(file: Path, people: Path, compact: FaceEngine) -> None:
    table = pq.read_table(file)
    assert pq.ParquetFile(file).num_row_groups == 3
    assert not Path(f"{file}.parts").exists()
    assert table.schema.metadata[b"facecore.contract"] == compact.contract_id.encode()
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 160)
    rows = table.to_pylist()
    names = [Path(row["path"]).relative_to(people).as_posix() for row in rows]
    assert list(zip(names, (row["face"] for row in rows), strict=True)) == [
        ("broken.jpg", None),
        ("eileen/a.png", 0),
        ("eileen/copy.png", 0),
        ("grace/both.png", 0),
        ("grace/both.png", 1),
        ("wall.png", None),
    ]
    assert [row["code"] for row in rows][::5] == ["UnreadableImage", "NoFaceDetected"]
    assert rows[0]["vector"] is None
    assert rows[1]["sha256"] == rows[2]["sha256"] != rows[3]["sha256"]
    (sample,) = compact.samples(people / "eileen/a.png")
    np.testing.assert_allclose(rows[1]["vector"], compact.embed(sample), atol=1e-5)
    np.testing.assert_allclose(rows[1]["box"], sample.face.box, atol=1e-2)
    np.testing.assert_allclose(rows[1]["landmarks"], sample.face.landmarks.ravel(), atol=1e-2)
    assert rows[1]["quality"] == pytest.approx(compact.quality(sample).score, abs=1e-3)


def test_a_stopped_run_goes_on(
    people: Path, file: Path, compact: FaceEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "vectors.parquet"
    read, seen = embedding.read_faces, []

    def stop_after_two(engine: FaceEngine, paths: list[Path], **options: Any) -> Any:
        seen.append(paths)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read(engine, paths, **options)

    monkeypatch.setattr(embedding, "read_faces", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        embed_pictures(compact, people, out, quality=True, row_group=2)
    assert not out.exists()
    result = embed_pictures(compact, people, out, quality=True, row_group=2)
    assert result.resumed == 4
    assert len(seen) == 4
    assert pq.read_table(out).equals(pq.read_table(file))
    assert sorted(tmp_path.iterdir()) == [out]


def test_a_changed_picture_is_read_again(people: Path, compact: FaceEngine, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(people, folder)
    paths = [folder / "wall.png"]
    before = embedding._part(compact, tmp_path, paths, False).file
    assert embedding._part(compact, tmp_path, paths, False).file == before
    assert embedding._part(compact, tmp_path, paths, True).file != before
    shutil.copy(folder / "eileen/a.png", folder / "wall.png")
    assert embedding._part(compact, tmp_path, paths, False).file != before


def test_a_part_of_another_engine_is_made_again(tmp_path: Path, compact: FaceEngine) -> None:
    others = [
        FaceEngine("compact-int8", threads=1),  # same contract and detector
        FaceEngine("compact", threads=1, min_recognizability=0),
        FaceEngine("compact", threads=1, limits=Limits(max_pixels=1000)),
    ]
    parts = {
        embedding._part(engine, tmp_path, [tmp_path / "a.png"], False).file
        for engine in (compact, FaceEngine("compact", threads=1), *others)
    }
    assert len(parts) == 4


def test_a_worker_refuses_what_the_caller_refuses(
    people: Path, tmp_path: Path, compact: FaceEngine
) -> None:
    picture, contract = people / "eileen/a.png", compact.contract_id
    row = {"pictures": [json.dumps([str(picture)])], "quality": [False]}
    for gate, limits, code in (
        (100.0, Limits(), "NoFaceDetected"),
        (0.0, Limits(max_pixels=1000), "ImageTooLarge"),
        (0.0, Limits(), None),
    ):
        worker = embedding._Worker("compact", contract, gate, limits)
        assert worker(row | {"file": [str(tmp_path / "part")]}) == {"written": [1]}
        assert pq.read_table(tmp_path / "part")["code"].to_pylist() == [code]
    with pytest.raises(ContractMismatch):
        embedding._Worker("compact", "another", 0.0, Limits())


def test_a_list_names_the_pictures(people: Path, tmp_path: Path, compact: FaceEngine) -> None:
    names = tmp_path / "list.txt"
    names.write_text(f"{people}/wall.png\n\nmissing.png\n")
    out = tmp_path / "vectors.parquet"
    result = embed_pictures(compact, names, out)
    assert (result.pictures, result.faces) == (2, 0)
    rows = pq.read_table(out).to_pylist()
    assert rows[1]["path"] == str(tmp_path / "missing.png")
    assert rows[1]["sha256"] is None
    names.write_text("\n")
    with pytest.raises(InvalidParameter, match="names no picture"):
        embed_pictures(compact, names, out)
    with pytest.raises(InvalidParameter, match="cannot be read"):
        embed_pictures(compact, tmp_path / "nothing", out)
    with pytest.raises(InvalidParameter, match="cannot be read"):
        embed_pictures(compact, tmp_path / ("x" * 300), out)
    assert pq.read_table(out).num_rows == 2  # the last good file stays


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
def test_a_name_that_is_not_utf8(tmp_path: Path, people: Path, compact: FaceEngine) -> None:
    (tmp_path / "pictures").mkdir()
    shutil.copy(people / "wall.png", os.fsencode(tmp_path / "pictures") + b"/caf\xe9.png")
    out = tmp_path / "vectors.parquet"
    assert embed_pictures(compact, tmp_path / "pictures", out).pictures == 1
    (row,) = pq.read_table(out).to_pylist()
    assert row["path"] == f"{tmp_path}/pictures/caf\\udce9.png"


def test_without_pyarrow_the_error_names_the_extra(
    people: Path, tmp_path: Path, compact: FaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"facecore\[bulk\]"):
        embed_pictures(compact, people, tmp_path / "v.parquet")


@pytest.mark.parametrize("place", ["folder", "milvus"])
def test_vectors_become_a_group(
    place: str, file: Path, people: Path, compact: FaceEngine, tmp_path: Path
) -> None:
    if place == "milvus":
        pytest.importorskip("milvus_lite")
    where = tmp_path / "g" if place == "folder" else f"milvus+file://{tmp_path}/g.db"
    with Gallery(where, compact) as gallery:
        assert load_vectors(gallery, file, "staff") == Moved(1, 2, 0)
        users = sorted(record.user_id for record in gallery.records("staff"))
        assert users == ["eileen", "grace"]  # neither the copy nor Grace's companion is added
        assert all(record.quality for record in gallery.records("staff"))
        assert load_vectors(gallery, file, "staff") == Moved(1, 2, 2)
        assert import_pictures(gallery, "staff", people).added == 0  # the same faces
        (match,) = gallery.search(people / "eileen/a.png", limit=1)
        assert match.user_id == "eileen"
        assert match.similarity > 0.95
        assert load_vectors(gallery, file, "all", user="picture") == Moved(1, 4, 0)
        assert gallery.count("all") == 4


def test_what_does_not_fit_changes_nothing(file: Path, compact: FaceEngine, tmp_path: Path) -> None:
    table = pq.read_table(file)
    bad = tmp_path / "bad.parquet"
    with Gallery(tmp_path / "g", compact) as gallery:

        def refuse(error: type[Exception], match: str) -> None:
            with pytest.raises(error, match=match):
                load_vectors(gallery, bad, "staff")
            assert gallery.groups() == []

        def write(**metadata: str) -> None:
            new = dict(table.schema.metadata)
            new |= {f"facecore.{k}".encode(): v.encode() for k, v in metadata.items()}
            pq.write_table(table.replace_schema_metadata(new), bad)

        write(contract="another")
        refuse(ContractMismatch, "'another'")
        write(version="9")
        refuse(InvalidParameter, "version")
        write(format="else")
        refuse(ArchiveCorrupt, "embed did not write this file")
        pq.write_table(table.drop_columns(["quality"]), bad)
        refuse(ArchiveCorrupt, "column")
        rows = table.to_pylist()
        rows[-2]["vector"] = [0.5] * 160  # in the last row group
        rows[-2]["face"] = 0
        pq.write_table(pa.Table.from_pylist(rows, table.schema), bad)
        refuse(InvalidParameter, "length")
        rows[-2]["vector"] = None
        pq.write_table(pa.Table.from_pylist(rows, table.schema), bad)
        refuse(ArchiveCorrupt, "no vector")
        bad.write_bytes(file.read_bytes()[:-100])
        refuse(ArchiveCorrupt, "bad.parquet")
        bad.unlink()
        refuse(InvalidParameter, "cannot be read")


def damage(path: Path, what: str) -> None:
    """Damage the page of vectors: its header, or numbers that decompress as before."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    (column,) = [c for c in columns if c.path_in_schema.startswith("vector")]
    start, size = column.data_page_offset, column.total_compressed_size
    data = bytearray(path.read_bytes())
    at = start if what == "header" else start + size - 100
    data[at : at + 8] = bytes(255 - byte for byte in data[at : at + 8])
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["header", "numbers"])
def test_damage_is_named(
    what: str, file: Path, people: Path, compact: FaceEngine, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.parquet"
    shutil.copy(file, bad)
    damage(bad, what)
    with (
        Gallery(tmp_path / "g", compact) as gallery,
        pytest.raises(ArchiveCorrupt, match=r"bad\.parquet"),
    ):
        load_vectors(gallery, bad, "staff", user="picture")
    out = tmp_path / "vectors.parquet"
    parts = tmp_path / "vectors.parquet.parts"
    parts.mkdir()
    part = embedding._part(compact, parts, [people / "eileen/a.png"], False)
    embedding._write(compact, part, False)
    damage(part.file, what)
    with pytest.raises(ArchiveCorrupt, match=f"{part.file.name} cannot be read.*remove it"):
        embed_pictures(compact, people / "eileen", out, row_group=1)
    assert not out.exists()


def test_a_part_that_the_system_does_not_read_is_kept(
    people: Path, compact: FaceEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(pq, "read_table", refuse)
    with pytest.raises(InvalidParameter, match=r"cannot be read.*Too many open files"):
        embed_pictures(compact, people / "eileen", tmp_path / "vectors.parquet")


def test_commands(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, gallery = str(tmp_path / "v.parquet"), ["--gallery", str(tmp_path / "g")]
    assert cli.main(["embed", str(people / "eileen"), "--out", out, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["faces"], answer["pictures"], answer["refused"]) == (2, 2, {})
    assert cli.main(["group", "load", out, *gallery]) == 2
    assert "--group" in capsys.readouterr().err
    assert cli.main(["group", "load", out, "--group", "staff", *gallery]) == 0
    assert "1 face of 1 group: 1 added, 0 already present" in capsys.readouterr().out
    assert cli.main(["embed", str(people), "--out", out, "--workers", "2"]) == 2


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:port", "a:99999"])
def test_an_address_without_ray_is_told_at_once(
    address: str, people: Path, tmp_path: Path, compact: FaceEngine
) -> None:
    with pytest.raises(InvalidParameter, match="no Ray cluster"):
        embed_pictures(compact, people, tmp_path / "v.parquet", ray=address)
    assert list(tmp_path.iterdir()) == []


def test_a_ray_that_does_not_start_is_told(
    people: Path, tmp_path: Path, compact: FaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")

    def refuse(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # embed_pictures sets it; this undoes it
    with pytest.raises(InvalidParameter, match="Ray at auto: The current node timed out"):
        embed_pictures(compact, people, tmp_path / "v.parquet", ray="auto")


RAY = """
import json, sys
from pathlib import Path
import facecore
from facecore.collections import embed_pictures
people, out = map(Path, sys.argv[1:])
engine = facecore.FaceEngine("compact", threads=1)
result = embed_pictures(engine, people, out, quality=True, row_group=2, ray="auto", workers=2)
print(json.dumps(result.as_dict()))
"""


def test_two_workers_of_ray_write_the_same_rows(people: Path, file: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("the extra ray is not installed")
    out = tmp_path / "ray.parquet"
    # On a busy machine Ray takes minutes to start; its time limits must not end the run.
    patience = {
        "RAY_worker_register_timeout_seconds": "600",
        "RAY_gcs_server_request_timeout_seconds": "600",
        "RAY_gcs_server_port_wait_time_s": "300",
        "RAY_health_check_timeout_ms": "300000",
    }
    # A separate process, because Ray leaves threads and sockets open and changes signal handlers.
    done = subprocess.run(
        [sys.executable, "-c", RAY, str(people), str(out)],
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | patience | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if "node timed out during startup" in done.stderr:
        pytest.skip("Ray gives a machine 30 seconds to start a node, which this one did not meet")
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1])["faces"] == 4
    alone, together = pq.read_table(file), pq.read_table(out)
    numbers = ["box", "landmarks", "vector"]
    assert together.drop_columns(numbers).equals(alone.drop_columns(numbers))
    for name in numbers:
        a, b = (table[name].combine_chunks().drop_null().flatten() for table in (alone, together))
        np.testing.assert_allclose(a.to_numpy(), b.to_numpy(), atol=1e-5)
