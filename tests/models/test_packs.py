"""Manifests are strict in form and meaning; packs are found offline and load only if intact."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecore.errors import InvalidParameter, PackCorrupt, PackNotFound
from facecore.models import registry
from facecore.models.manifest import Manifest, contract_id, read_manifest
from facecore.models.packs import find_pack, load_pack
from facecore.models.schema import parse, read_toml

REPO = Path(__file__).resolve().parents[2]
MANIFEST = REPO / "weights" / "mobilefacenet" / "pack.toml"
DETECTOR, EMBEDDER = b"detector bytes", b"embedder bytes!"


def to_toml(value: Any) -> str:
    if isinstance(value, dict):
        items = ", ".join(f"{json.dumps(key)} = {to_toml(item)}" for key, item in value.items())
        return "{" + items + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    return json.dumps(value)


def document(table: dict[str, Any]) -> str:
    return "\n".join(f"{json.dumps(key)} = {to_toml(item)}" for key, item in table.items())


def base_table(name: str = "demo") -> dict[str, Any]:
    table = copy.deepcopy(read_toml(MANIFEST))
    table["name"] = name
    for role, data in (("detector", DETECTOR), ("embedder", EMBEDDER)):
        table[role] |= {
            "file": f"{role}.onnx",
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    for tables in ("calibration", "id_portrait_calibration", "recognizability"):
        table["embedder"][tables]["embedder"] = table["embedder"]["sha256"]
    return table


def write_pack(folder: Path, name: str = "demo", **models: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pack.toml").write_text(document(base_table(name)))
    for role, data in (models or {"detector": DETECTOR, "embedder": EMBEDDER}).items():
        (folder / f"{role}.onnx").write_bytes(data)
    return folder


def read(table: dict[str, Any]) -> Manifest:
    return parse(Manifest, table, Path("pack.toml"))


def change(table: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    inner: Any = table
    for key in parents:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    inner[int(last) if isinstance(inner, list) else last] = value
    return table


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A facecore that ships `small`, knows `big`, and has an empty cache."""
    root = tmp_path / "weights"
    write_pack(root / "small", "small")
    write_pack(root / "big", "big")
    for role in ("detector", "embedder"):
        (root / "big" / f"{role}.onnx").unlink()
    urls = {f"{role}.onnx": f"https://example.org/{role}.onnx" for role in ("detector", "embedder")}
    packs = [
        {"name": "small", "summary": "ships", "shipped": True},
        {"name": "big", "summary": "is pulled", "shipped": False, "files": urls},
    ]
    (root / "registry.toml").write_text(document({"format": 1, "packs": packs}))
    monkeypatch.setattr(registry, "shipped_root", lambda: root)
    monkeypatch.setenv("FACECORE_CACHE", str(tmp_path / "cache"))
    return root


def test_the_published_manifest_is_valid() -> None:
    manifest = read_manifest(MANIFEST)
    assert manifest.name == "mobilefacenet"
    assert manifest.embedder.output.dimension == 128
    assert "withdrawn" in manifest.embedder.caveat
    assert manifest.embedder.input.mean == pytest.approx((0.485 * 255, 0.456 * 255, 0.406 * 255))


def test_a_toml_integer_is_a_number() -> None:
    table = change(base_table(), "detector.input.mean", [0, 0, 0])
    assert read(table).detector.input.mean == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 2),
        ("format", True),
        ("name", "../up"),
        ("name", "Upper"),
        ("version", 1),
        ("summary", "two\nlines"),
        ("summary", "red \x1b[31m"),
        ("summary", "turned \u202e around"),
        ("detector", []),
        ("detector.extra", 1),
        ("detector.file", "a/b.onnx"),
        ("detector.file", "..\\b.onnx"),
        ("detector.file", ".."),
        ("detector.file", ""),
        ("detector.file", "pack.toml"),
        ("detector.file", "embedder.onnx"),
        ("detector.architecture", "retina"),
        ("detector.threshold", 1.0),
        ("detector.output.names", ["cls_8", "cls_16"]),
        ("detector.size", 0),
        ("detector.size", -1),
        ("detector.size", 2**40),
        ("detector.size", 14.0),
        ("detector.sha256", "A" * 64),
        ("detector.sha256", "0" * 63),
        ("detector.license", ""),
        ("detector.input.layout", "CHWN"),
        ("detector.input.channels", "YUV"),
        ("detector.input.height", -32),
        ("detector.input.mean", [0.0, 0.0]),
        ("detector.input.mean", [0.0, "0", 0.0]),
        ("detector.input.mean", [10**400, 0, 0]),
        ("detector.input.std", [1.0, 0.0, 1.0]),
        ("detector.output.names", []),
        ("detector.output.names", ["a", "a"]),
        ("detector.output.strides", [16, 8]),
        ("embedder.alignment", "two-eyes"),
        ("embedder.max_batch", -1),
        ("embedder.input.height", 0),
        ("embedder.output.dimension", 0),
        ("embedder.calibration.genuine", -1),
        ("embedder.calibration.embedder", "0" * 64),  # a table of another model
        ("embedder.id_portrait_calibration.embedder", "0" * 64),
        ("embedder.folder", "relative"),
        ("detector.output.names", ["a", "b", "c"]),  # as RetinaFace has
        ("detector.input.height", 320),  # and no width
        ("embedder.calibration.knots", []),
        ("embedder.calibration.knots.0.score", 50.0),
        ("embedder.calibration.knots.0.score", 101.0),
        ("embedder.calibration.knots.0.similarity", -1.0),
        ("embedder.calibration.knots.0.similarity", 0.9),
        ("embedder.calibration.knots.0.far", 0.05),
        ("embedder.calibration.knots.0.low", 0.9),
        ("embedder.calibration.knots.2.far", 0.011),
        ("embedder.calibration.knots.2.score", 71.0),
        ("embedder.calibration.knots.0.measured", False),
        ("embedder.calibration.knots.3.measured", False),  # and the rarer one is measured
        ("embedder.calibration.knots.4.measured", 0),
        ("embedder.calibration.knots.4.fnmr", 0.1),
        ("embedder.calibration.knots.4.fnmr", {"value": 0.5, "low": 0.6, "high": 0.7}),
        ("embedder.calibration.tail", "log-linear"),
        ("embedder.calibration.tail_scale", 0.0),
        ("embedder.calibration.tail_scale", 2.0),
        ("embedder.id_portrait_calibration", []),
        ("embedder.id_portrait_calibration.extra", 1),
        ("embedder.id_portrait_calibration.knots", []),
    ],
)
def test_a_wrong_field_is_named(path: str, value: Any) -> None:
    table = base_table()
    if path == "embedder.calibration.knots.0.low":
        table["embedder"]["calibration"]["knots"][0]["high"] = 0.1
    with pytest.raises(PackCorrupt) as caught:
        read(change(table, path, value))
    assert "pack.toml" in caught.value.message
    named = path.split(".knots")[0].split(".")[-1]
    assert named in caught.value.message


def test_optional_parts_may_be_absent() -> None:
    table = base_table()
    del table["embedder"]["id_portrait_calibration"]
    for knot in table["embedder"]["calibration"]["knots"]:
        del knot["fnmr"]
    embedder = read(table).embedder
    assert embedder.id_portrait_calibration is None
    assert all(knot.fnmr is None and knot.measured for knot in embedder.calibration.knots)


def test_the_known_packs_have_both_tables() -> None:
    for name in ("compact", "mobilefacenet"):
        embedder = read_manifest(REPO / "weights" / name / "pack.toml").embedder
        for table in (embedder.calibration, embedder.id_portrait_calibration):
            assert table is not None
            assert table.identities >= 6000
            assert table.impostor >= 2_000_000
            for knot in table.knots:
                assert knot.measured
                assert knot.low < knot.far < knot.high
                assert knot.fnmr is not None


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_number_is_finite(tmp_path: Path, number: str) -> None:
    text = MANIFEST.read_text().replace("std = [1.0,", f"std = [{number},")
    (tmp_path / "pack.toml").write_text(text)
    with pytest.raises(PackCorrupt, match=r"detector\.input\.std\[0\]"):
        read_manifest(tmp_path / "pack.toml")


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"a = ", b"a = " + b"[" * 9000, b"a=" + b"9" * 9000, b"#" * (2 << 20)],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "pack.toml").write_bytes(data)
    with pytest.raises(PackCorrupt, match=r"pack\.toml"):
        read_manifest(tmp_path / "pack.toml")


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in pairs:
        found.append((*prefix, key))
        if isinstance(item, (dict, list)):
            found += _paths(item, (*prefix, key))
    return found


def present(value: Any) -> Any:
    """Drop None values, because TOML has no null and leaves the field out."""
    if isinstance(value, dict):
        return {key: present(item) for key, item in value.items() if item is not None}
    return [present(item) for item in value] if isinstance(value, list) else value


PATHS = _paths(base_table())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from("mdi"), VALUES), max_size=3))
def test_any_change_is_corrupt_or_valid(changes: list[tuple[tuple[Any, ...], str, Any]]) -> None:
    table: Any = base_table()
    for path, action, value in changes:
        inner = table
        try:
            for key in path[:-1]:
                inner = inner[key]
            if action == "m":
                inner[path[-1]] = value
            elif action == "d":
                del inner[path[-1]]
            elif isinstance(inner, dict):
                inner[f"{path[-1]}_"] = value
            else:
                inner.insert(path[-1], value)
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier change removed the parent
    try:
        manifest = read(table)
    except PackCorrupt:
        return
    # An accepted manifest survives a round trip, so nothing was coerced or lost.
    assert read(present(json.loads(json.dumps(dataclasses.asdict(manifest))))) == manifest


@settings(max_examples=100)
@given(st.integers(0, 4000), st.integers(0, 40), st.binary(max_size=8))
def test_any_damage_to_the_file_is_corrupt_or_valid(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, insert: bytes
) -> None:
    data = MANIFEST.read_bytes()
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(data[:at] + insert + data[at + cut :])
    try:
        manifest = read_manifest(path)
    except PackCorrupt:
        return
    assert isinstance(manifest, Manifest)


def test_contract_is_the_embedder_and_nothing_else() -> None:
    first = contract_id(read(base_table("one")).embedder)
    table = base_table("two")
    table["detector"]["sha256"] = "0" * 64
    table["embedder"]["calibration"]["knots"][0]["similarity"] = 0.01
    table["embedder"] |= {"file": "other.onnx", "max_batch": 8, "caveat": ""}
    assert contract_id(read(table).embedder) == first
    for path, value in (
        ("embedder.sha256", "0" * 64),
        ("embedder.input.mean", [1.0, 1.0, 1.0]),
        ("embedder.input.channels", "BGR"),
        ("embedder.output.dimension", 127),
    ):
        table = base_table()
        for tables in ("calibration", "id_portrait_calibration", "recognizability"):
            del table["embedder"][tables]  # the tables are bound to the SHA-256
        assert contract_id(read(change(table, path, value)).embedder) != first


def test_contract_is_stable_across_releases() -> None:
    # Galleries on disk store the contract, so a change here orphans every enrolled template.
    embedder = read_manifest(MANIFEST).embedder
    assert contract_id(embedder) == "c1-30b4e284fab557a4"
    mean = (-0.0, *embedder.input.mean[1:])
    table = change(base_table(), "embedder.input.mean", list(mean))
    zero = change(base_table(), "embedder.input.mean", [0, *mean[1:]])
    assert contract_id(read(table).embedder) == contract_id(read(zero).embedder)


def test_load_returns_the_hashed_bytes(tmp_path: Path) -> None:
    loaded = load_pack(write_pack(tmp_path / "p"))
    assert (loaded.detector, loaded.embedder) == (DETECTOR, EMBEDDER)
    assert loaded.pack.name == "demo"
    assert "bytes" not in repr(loaded).replace("size", "")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"detectoR bytes", "SHA-256"),
        (DETECTOR[:-1], "found 13"),
        (DETECTOR + b"x", "more than 14"),
        (b"", "found 0"),
    ],
)
def test_a_changed_file_is_corrupt(tmp_path: Path, data: bytes, message: str) -> None:
    folder = write_pack(tmp_path / "p")
    (folder / "detector.onnx").write_bytes(data)
    with pytest.raises(PackCorrupt, match=message) as caught:
        load_pack(folder)
    assert "detector.onnx" in caught.value.message
    assert caught.value.hint


def test_a_missing_file_is_corrupt(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "p", embedder=EMBEDDER)
    with pytest.raises(PackCorrupt, match=r"detector\.onnx"):
        find_pack(folder)
    (folder / "detector.onnx").mkdir()
    with pytest.raises(PackCorrupt, match=r"detector\.onnx"):
        find_pack(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "p", embedder=EMBEDDER)
    os.mkfifo(folder / "detector.onnx")
    with pytest.raises(PackCorrupt, match="missing"):
        load_pack(folder)


def test_a_folder_is_a_path_or_has_a_separator(
    tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pack(tmp_path / "here")
    write_pack(tmp_path / "small", "mine")
    monkeypatch.chdir(tmp_path)
    for given_path in (tmp_path / "here", str(tmp_path / "here"), "./here", "here"):
        assert find_pack(given_path).name == "demo"
    assert find_pack("small").name == "small"  # a known name never means a local folder
    assert find_pack("./small").name == "mine"
    with pytest.raises(PackNotFound, match=r"pack\.toml"):
        find_pack(tmp_path / "nowhere")


def test_known_but_not_pulled_names_the_command(shipped: Path) -> None:
    with pytest.raises(PackNotFound) as caught:
        find_pack("big")
    assert caught.value.hint == "facecore weights pull big"


def test_the_real_hint() -> None:
    if (MANIFEST.parent / "MobileFaceNet.onnx").exists():
        pytest.skip("the models lie in this checkout")
    code = (
        "from facecore.models.packs import find_pack\n"
        "from facecore.errors import PackNotFound\n"
        "import sys\n"
        "try:\n    find_pack('mobilefacenet')\n"
        "except PackNotFound as error:\n    print(error.hint)\n"
        "print([name for name in ('onnxruntime', 'urllib.request', 'tqdm') if name in sys.modules])"
    )
    environment = os.environ | {"FACECORE_CACHE": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["facecore weights pull mobilefacenet", "[]"]


LONG = "x" * 300  # longer than a file's name may be


@pytest.mark.parametrize("name", ["", "no-such", "Big", "big\n", "..", ".", LONG])
def test_an_unknown_name_lists_the_known(shipped: Path, name: str) -> None:
    with pytest.raises(PackNotFound) as caught:
        find_pack(name)
    assert "small, big" in caught.value.hint


@pytest.mark.parametrize("folder", [f"./{LONG}", "~no-such-user/pack"])
def test_a_folder_that_cannot_be_looked_at(shipped: Path, folder: str) -> None:
    with pytest.raises(PackNotFound, match="is not a pack"):
        find_pack(folder)


def test_a_text_may_hold_any_space(shipped: Path) -> None:
    table = base_table()
    table["embedder"]["calibration"]["dataset"] = "staff\u3000of\u00a0a house"
    made = parse(Manifest, table, Path("pack.toml"))
    assert made.embedder.calibration is not None
    assert "\u3000" in made.embedder.calibration.dataset


def test_what_is_no_name(shipped: Path) -> None:
    with pytest.raises(InvalidParameter):
        find_pack(3)  # type: ignore[arg-type]


def test_the_cache_is_looked_at(shipped: Path, tmp_path: Path) -> None:
    cached = write_pack(tmp_path / "cache" / "packs" / "big", "big")
    assert find_pack("big").folder == cached
    (cached / "pack.toml").unlink()  # facecore's own manifest applies
    assert load_pack("big").pack.folder == cached
    (cached / "embedder.onnx").unlink()
    with pytest.raises(PackCorrupt) as caught:
        find_pack("big")
    assert caught.value.hint == "facecore weights pull big"
    assert find_pack(write_pack(tmp_path / "cache" / "packs" / "own", "own")).name == "own"
    assert find_pack("own").name == "own"


def test_a_shipped_pack_hints_at_reinstalling(shipped: Path) -> None:
    (shipped / "small" / "detector.onnx").write_bytes(b"x" * len(DETECTOR))
    with pytest.raises(PackCorrupt, match="reinstall"):
        load_pack("small")
    (shipped / "small" / "detector.onnx").unlink()
    with pytest.raises(PackCorrupt, match="reinstall"):
        load_pack("small")
    (shipped / "small" / "pack.toml").unlink()
    with pytest.raises(PackNotFound, match="reinstall"):
        load_pack("small")


def test_a_pack_under_another_name_is_corrupt(shipped: Path, tmp_path: Path) -> None:
    write_pack(tmp_path / "cache" / "packs" / "alias", "other")
    with pytest.raises(PackCorrupt, match="name"):
        find_pack("alias")


ATTRIBUTES = b"attributes bytes"


def table_with_attributes() -> dict[str, Any]:
    table = base_table()
    embedder = copy.deepcopy(table["embedder"])
    shared = ("architecture", "license", "source", "training_data", "caveat", "alignment", "input")
    table["attributes"] = {name: embedder[name] for name in shared} | {
        "file": "attributes.onnx",
        "size": len(ATTRIBUTES),
        "sha256": hashlib.sha256(ATTRIBUTES).hexdigest(),
        "output": {"age": "age", "gender": "gender", "ages": 101},
    }
    return table


def test_a_pack_may_have_a_network_for_attributes(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "demo")
    assert load_pack(folder).attributes is None
    assert load_pack(folder).pack.attributes is None
    before = load_pack(folder).pack.contract_id
    (folder / "pack.toml").write_text(document(table_with_attributes()))
    with pytest.raises(PackCorrupt, match=r"attributes\.onnx: the model file is missing"):
        load_pack(folder)
    (folder / "attributes.onnx").write_bytes(ATTRIBUTES)
    loaded = load_pack(folder)
    assert loaded.attributes == ATTRIBUTES
    assert list(loaded.pack.manifest.models) == ["detector", "embedder", "attributes"]
    assert loaded.pack.contract_id == before
    (folder / "attributes.onnx").write_bytes(ATTRIBUTES[::-1])
    with pytest.raises(PackCorrupt, match="SHA-256"):
        load_pack(folder)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("attributes.file", "embedder.onnx", "attributes.file: is the embedder's file too"),
        ("attributes.alignment", "none", "attributes.alignment: must be one of"),
        ("attributes.input.width", 96, "attributes.input.width: must be 112"),
        ("attributes.output.ages", 1, "attributes.output.ages: must be within"),
        ("attributes.output.gender", "", "attributes.output.gender: must not be empty"),
        ("attributes.output.colour", "x", "attributes.output.colour: unknown field"),
    ],
)
def test_wrong_attributes_are_named(path: str, value: Any, problem: str) -> None:
    with pytest.raises(PackCorrupt, match=problem):
        read(change(table_with_attributes(), path, value))
