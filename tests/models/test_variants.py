"""A variant shares files and, if measured as compatible, the contract of its source pack."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from facecore import FaceEngine, Gallery
from facecore.errors import PackCorrupt
from facecore.models.listing import list_packs, verify
from facecore.models.manifest import Manifest, contract_id, read_manifest
from facecore.models.packs import find_pack, load_pack
from facecore.models.registry import shipped_root
from facecore.models.schema import parse, read_toml

sys.path.insert(0, str(Path(__file__).parents[2] / "weights" / "training"))

from calibrate import replace_tables

COMPACT, INT8 = shipped_root() / "compact", shipped_root() / "compact-int8"
RATE = {
    "similarity": 0.4, "fmr": 0.001, "mixed_fmr": 0.0012, "fnmr": 0.05, "mixed_fnmr": 0.06,
}  # fmt: skip
EVIDENCE = {
    "pack": "compact", "contract": "c1-0123456789abcdef", "dataset": "some pictures",
    "pictures": 200, "identities": 100, "genuine": 200, "impostor": 30000,
    "cosine_mean": 0.995, "cosine_low": 0.98, "rates": [RATE],
}  # fmt: skip


def table(**evidence: Any) -> dict[str, Any]:
    made = copy.deepcopy(read_toml(COMPACT / "pack.toml"))
    made["embedder"]["interchange"] = copy.deepcopy(EVIDENCE) | evidence
    return made


def read(made: dict[str, Any]) -> Manifest:
    return parse(Manifest, made, Path("pack.toml"))


def test_the_contract_is_the_measured_one() -> None:
    manifest = read(table())
    assert contract_id(manifest.embedder) == EVIDENCE["contract"]
    assert contract_id(read_manifest(COMPACT / "pack.toml").embedder) != EVIDENCE["contract"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cosine_mean", 0.98),
        ("cosine_mean", 1.01),
        ("cosine_low", 0.9),
        ("contract", "c2-0123456789abcdef"),
        ("pack", "No Name"),
        ("dataset", " "),
        ("genuine", 0),
        ("rates", []),
        ("rates", [RATE, RATE]),
        ("rates", [RATE | {"mixed_fmr": 0.0013}]),
        ("rates", [RATE | {"mixed_fnmr": 0.08}]),
        ("rates", [RATE | {"fnmr": -0.1}]),
        ("rates", [RATE | {"note": 1}]),
        ("more", 1),
    ],
)
def test_evidence_that_falls_short_is_an_error(field: str, value: Any) -> None:
    with pytest.raises(PackCorrupt, match=r"embedder\.interchange\."):
        read(table(**{field: value}))


@pytest.mark.parametrize("name", ["compact", "../compact", ""])
def test_shares_names_another_pack(name: str) -> None:
    with pytest.raises(PackCorrupt, match="shares"):
        read(table() | {"shares": name})


def test_shared_files_are_hashed_too(tmp_path: Path) -> None:
    for folder in (COMPACT, INT8):
        shutil.copytree(folder, tmp_path / folder.name)
    variant = tmp_path / INT8.name
    assert load_pack(variant).liveness == load_pack("compact").liveness
    shared = tmp_path / "compact" / "liveness.onnx"
    data = shared.read_bytes()
    shared.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PackCorrupt, match=r"compact.liveness\.onnx: SHA-256"):
        load_pack(variant)
    shared.unlink()
    with pytest.raises(PackCorrupt, match=r"compact.liveness\.onnx: the model file is missing"):
        find_pack(variant)
    shutil.copy(COMPACT / "liveness.onnx", variant)  # the variant's folder comes first
    assert load_pack(variant).liveness == data


def test_the_variant_ships_without_a_second_copy() -> None:
    info = {pack.name: pack for pack in list_packs()}["compact-int8"]
    assert info.shipped
    assert info.installed
    assert all(check.ok for check in verify("compact-int8"))
    own, other = ({path.read_bytes() for path in f.glob("*.onnx")} for f in (INT8, COMPACT))
    assert own
    assert not own & other


@pytest.fixture(scope="module")
def int8() -> FaceEngine:
    return FaceEngine("compact-int8", threads=1)


def test_both_vectors_of_a_picture_are_close(
    compact: FaceEngine, int8: FaceEngine, astronaut: NDArray[np.uint8], hopper: NDArray[np.uint8]
) -> None:
    for picture in (astronaut, hopper, astronaut[:, ::-1]):
        plain, small = compact.embed(picture), int8.embed(picture)
        assert plain @ small > 0.97
        landmarks = [engine.largest_face(picture).landmarks for engine in (compact, int8)]
        eyes = np.linalg.norm(landmarks[0][0] - landmarks[0][1])
        assert np.linalg.norm(landmarks[0] - landmarks[1], axis=1).mean() < 0.05 * eyes


def test_the_variant_decides_as_the_pack(
    int8: FaceEngine, astronaut: NDArray[np.uint8], hopper: NDArray[np.uint8]
) -> None:
    assert int8.compare(astronaut, astronaut[:, ::-1]).passed
    assert not int8.compare(astronaut, hopper).passed
    assert int8.liveness(hopper).attack_score >= 0  # a shared model


def test_one_embeds_alike_alone_and_among_others(
    int8: FaceEngine, astronaut: NDArray[np.uint8], hopper: NDArray[np.uint8]
) -> None:
    many = list(int8.embed_many([astronaut, hopper, astronaut]))
    for vector, picture in zip(many, (astronaut, hopper, astronaut), strict=True):
        np.testing.assert_allclose(vector, int8.embed(picture), atol=1e-4)


def test_a_gallery_of_the_float_pack_opens_with_the_variant(
    tmp_path: Path,
    compact: FaceEngine,
    int8: FaceEngine,
    astronaut: NDArray[np.uint8],
    hopper: NDArray[np.uint8],
) -> None:
    if int8.pack.embedder.interchange is None:
        pytest.skip("the variant was measured to need a contract of its own")
    assert int8.contract_id == compact.contract_id
    with Gallery(tmp_path / "people", compact) as gallery:
        gallery.create_group("staff")
        gallery.add("staff", astronaut, user_id="eileen")
        gallery.add("staff", hopper, user_id="grace")
    with Gallery(tmp_path / "people", int8) as gallery:
        best = gallery.search(np.ascontiguousarray(astronaut[:, ::-1]), groups=["staff"])
        assert best[0].user_id == "eileen"


def test_a_granted_contract_is_that_of_the_pack_it_names() -> None:
    for manifest in shipped_root().glob("*/pack.toml"):
        if (granted := read_manifest(manifest).embedder.interchange) is not None:
            owner = read_manifest(shipped_root() / granted.pack / "pack.toml")
            assert granted.contract == contract_id(owner.embedder), "quantise again"


def test_new_tables_leave_the_other_models_in_the_manifest(tmp_path: Path) -> None:
    # The sections of liveness and attributes follow the tables and must stay.
    path = tmp_path / "pack.toml"
    shutil.copy(COMPACT / "pack.toml", path)
    before = path.read_text()
    lines = before.splitlines()
    start = lines.index("  [embedder.calibration]") - 1
    old = lines[start : lines.index("[liveness]") - 1]
    people = read_manifest(path).embedder.calibration.identities
    now, fewer = f"identities = {people}", f"identities = {people - 1}"
    changed = [line.replace(now, fewer) for line in old]
    replace_tables(path, changed)
    assert path.read_text() == before.replace(now, fewer)
    assert read_manifest(path).embedder.calibration.identities == people - 1
    replace_tables(path, old)
    assert path.read_text() == before
    replace_tables(path, [])  # as before a measurement of new weights
    assert read_manifest(path).embedder.calibration is None
    replace_tables(path, old)
    assert path.read_text() == before
