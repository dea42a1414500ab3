"""The optional liveness model of a pack: strictly checked if present, None if absent."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from facecore.errors import InvalidParameter, PackCorrupt
from facecore.face.liveness import AttackClassifier
from facecore.models.manifest import Manifest, contract_id, read_manifest
from facecore.models.packs import load_pack
from facecore.models.schema import parse, read_toml
from facecore.models.session import open_model

REPO = Path(__file__).resolve().parents[2]
WEIGHTS = REPO / "weights"
TABLE = read_toml(WEIGHTS / "compact" / "pack.toml")


def read(**changes: Any) -> Manifest:
    table = copy.deepcopy(TABLE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = table["liveness"]
        for key in parents:
            inner = inner[key]
        inner[last] = value
    return parse(Manifest, table, Path("pack.toml"))


def test_the_compact_pack_has_one_and_it_names_its_bpcer() -> None:
    manifest = read()
    assert manifest.liveness is not None
    assert "liveness" in manifest.models
    assert 0 < manifest.liveness.bpcer < 0.06
    assert "genuine" in manifest.liveness.bpcer_dataset
    assert manifest.liveness.is_runnable


def test_the_model_of_the_first_version_is_read_but_not_run() -> None:
    old = read_manifest(REPO / "tests/data/v0.1.0/compact.toml").liveness
    assert old is not None
    assert not old.is_runnable
    with pytest.raises(InvalidParameter, match="native-patches-112"):
        AttackClassifier(None, old)  # type: ignore[arg-type]


def test_a_cue_that_is_not_measured_is_named() -> None:
    spec = read().liveness
    assert spec is not None
    names = ["smell", *spec.cues.names[1:]]
    unknown = read(cues__names=names).liveness
    assert unknown is not None
    with pytest.raises(PackCorrupt, match="unknown cues: smell"):
        AttackClassifier(None, unknown)  # type: ignore[arg-type]


def test_a_pack_may_lack_it() -> None:
    manifest = read_manifest(WEIGHTS / "mobilefacenet" / "pack.toml")
    assert manifest.liveness is None
    assert list(manifest.models) == ["detector", "embedder"]


def test_it_is_no_part_of_the_contract() -> None:
    table = {key: value for key, value in TABLE.items() if key != "liveness"}
    without = parse(Manifest, table, Path("pack.toml"))
    assert contract_id(without.embedder) == contract_id(read().embedder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("architecture", "resnet"),
        ("threshold", 0.0),
        ("threshold", 100.0),
        ("bpcer", 1.5),
        ("bpcer_dataset", " "),
        ("file", "embedder.onnx"),
        ("file", "Detector.onnx"),
        ("extra", 1),
        ("max_batch", 1),
        ("input__height", 128),
        ("output__name", ""),
        ("input__width", 64),
        ("cues__names", []),
        ("cues__names", ["gamut"] * 2),
        ("cues__mean", [0.0]),
        ("cues__scale", [0.0] * len(TABLE["liveness"]["cues"]["names"])),
        ("cues__weight", [0.0] * 20),
        ("cues__bias", "0"),
    ],
)
def test_a_wrong_field_is_named(path: str, value: Any) -> None:
    with pytest.raises(PackCorrupt, match=rf"liveness\.{path.replace('__', '.')}"):
        read(**{path: value})


def test_its_bytes_are_checked(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(WEIGHTS / "compact", folder)
    assert load_pack(folder).liveness
    data = (folder / "liveness.onnx").read_bytes()
    (folder / "liveness.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PackCorrupt, match=r"liveness\.onnx.*SHA-256"):
        load_pack(folder)
    (folder / "liveness.onnx").unlink()
    with pytest.raises(PackCorrupt, match=r"liveness\.onnx.*missing"):
        load_pack(folder)


def test_a_model_of_another_role_is_refused() -> None:
    loaded = load_pack("compact")
    assert loaded.pack.liveness is not None
    with pytest.raises(
        PackCorrupt, match=r"liveness\.onnx: input input: W is 112, the manifest says 192"
    ):
        open_model(loaded.pack.liveness, loaded.embedder, threads=1)
