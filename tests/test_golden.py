"""Files of earlier versions, from tests/data/make.py, still open with the same content."""

from __future__ import annotations

import base64
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from templates import TemplateEngine

from facecore import FaceEngine, FaceRecord, Gallery
from facecore.gallery.archive import load_groups
from facecore.gallery.index import HnswIndex, generations
from facecore.models.calibration_file import read_calibration
from facecore.models.manifest import contract_id, read_manifest

VERSIONS = sorted((Path(__file__).parent / "data").glob("v*"))
FACES = 40
REMOVED = {6, 7}  # user u3


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy, because opening a gallery may write."""
    return shutil.copytree(request.param, tmp_path / "golden")


@pytest.fixture
def facts(golden: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((golden / "facts.json").read_text("utf-8"))
    return found


@pytest.fixture
def vectors(facts: dict[str, Any]) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(facts["vectors"]), "<f4").reshape(FACES, -1)


@pytest.fixture
def engine(golden: Path) -> Any:
    return TemplateEngine(golden / "pack")


def face_id(number: int) -> str:
    return f"{number:032x}"


def check_faces(gallery: Gallery, vectors: NDArray[np.float32]) -> None:
    staff, visitors = gallery.groups()
    assert (staff.name, staff.title, staff.description) == ("staff", "Staff — 職員", "everybody")
    assert (visitors.name, visitors.title, visitors.description) == ("visitors", "", "")
    assert (staff.size, visitors.size) == (28, 10)
    records: dict[str, FaceRecord] = {
        record.face_id: record for name in ("staff", "visitors") for record in gallery.records(name)
    }
    assert records.keys() == {face_id(i) for i in range(FACES) if i not in REMOVED}
    for i in (0, 1, 29, 30, 39):
        record, place = records[face_id(i)], i % 30
        assert record.user_id == f"u{i // 2}"
        assert record.group == ("staff" if i < 30 else "visitors")
        assert record.quality == (None if place % 5 == 0 else 50 + place)
        assert record.origin == ("MANUAL" if place % 2 else "AUTO")
        assert record.created == datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC)
    for i, vector in enumerate(vectors):
        best = gallery.search(vector, limit=1)[0]
        assert (best.face_id == face_id(i)) == (i not in REMOVED)
        if i not in REMOVED:
            assert (best.score, best.similarity) == pytest.approx((100, 1), abs=1e-4)


def test_there_are_golden_files() -> None:
    assert VERSIONS


def test_a_gallery(golden: Path, engine: Any, vectors: NDArray[np.float32]) -> None:
    with Gallery(golden / "gallery", engine, read_only=True) as gallery:
        check_faces(gallery, vectors)
    with Gallery(golden / "gallery", engine) as gallery:
        gallery.compact()
        added = gallery.add("visitors", vectors[6], "new")
        assert added.id > FACES
    with Gallery(golden / "gallery", engine) as gallery:
        assert gallery.search(vectors[6], limit=1)[0].user_id == "new"
        assert gallery.remove("visitors", user_id="new") == 1
        check_faces(gallery, vectors)


def test_an_archive(
    golden: Path, engine: Any, vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    with Gallery(tmp_path / "new", engine) as gallery:
        assert load_groups(gallery, golden / "archive.jsonl").faces == 38
        check_faces(gallery, vectors)


def test_encrypted_files(tmp_path: Path) -> None:
    pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
    old = VERSIONS[0]
    facts = json.loads((old / "facts.json").read_text("utf-8"))
    vectors = np.frombuffer(base64.b64decode(facts["vectors"]), "<f4").reshape(FACES, -1)
    engine: Any = TemplateEngine(old / "pack")
    place, key = shutil.copytree(old.parent / "encrypted", tmp_path / "golden"), bytes(range(32))
    for read_only in (True, False):
        with Gallery(place / "gallery", engine, key=key, read_only=read_only) as gallery:
            check_faces(gallery, vectors)
    with Gallery(tmp_path / "new", engine) as gallery:
        assert load_groups(gallery, place / "archive.sealed", key=key).faces == 38
        check_faces(gallery, vectors)


def test_a_saved_hnsw_index(
    golden: Path, facts: dict[str, Any], vectors: NDArray[np.float32]
) -> None:
    pytest.importorskip("hnswlib")
    found = generations.latest(golden / "hnsw", facts["contract"], vectors.shape[1])
    assert isinstance(found, generations.Generation)
    assert (found.kind, found.rows, found.watermark) == ("hnsw", 39, {"face": FACES})
    index = HnswIndex.load(found.folder)
    assert index.parameters == found.parameters == {"m": 4, "ef_construction": 40}
    ids, similarities = index.search(vectors, 1)
    kept = np.arange(FACES) != 3
    np.testing.assert_array_equal(ids[kept, 0], np.arange(100, 100 + FACES)[kept])
    np.testing.assert_allclose(similarities[kept, 0], 1, atol=1e-6)
    assert ids[3, 0] != 103
    assert set(index.search(vectors, 13, [1])[0].ravel() % 3) == {(100 + 1) % 3}
    index.add([103], vectors[3:4])
    assert index.search(vectors[3], 1)[0][0] == 103


def test_a_pack(golden: Path, facts: dict[str, Any]) -> None:
    engine = FaceEngine(golden / "pack", threads=1)
    assert engine.contract_id == facts["contract"]
    picture = np.zeros((640, 640, 3), np.uint8)
    picture[250:390, 250:390] = 255
    for face in engine.detect(picture):
        assert (abs((face.box[:2] + face.box[2:]) / 2 - 320) < 70).all()
    assert np.linalg.norm(engine.embed(picture)) == pytest.approx(1, abs=1e-5)


def test_manifests_with_every_section(golden: Path, facts: dict[str, Any]) -> None:
    for name, contract in facts["manifests"].items():
        manifest = read_manifest(golden / name)
        assert contract_id(manifest.embedder) == contract
        assert manifest.models.keys() == {"detector", "embedder", "liveness", "attributes"}
        assert manifest.embedder.id_portrait_calibration is not None
    assert manifest.embedder.interchange is not None


def test_a_calibration(golden: Path, facts: dict[str, Any]) -> None:
    content = read_calibration(golden / "calibration.toml")
    assert (content.format, content.pack, content.contract) == (1, "golden", facts["contract"])
    assert content.calibration.dataset == "a user's own, invented"
    engine = FaceEngine(golden / "pack", calibration=golden / "calibration.toml")
    assert engine.calibration.threshold(0.001) == 80
    assert engine.calibration.score(0.4) == pytest.approx(70)
