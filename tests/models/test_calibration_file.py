"""Calibration files of a user: read back what was written, and refuse everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facecore.errors import InvalidParameter
from facecore.matching.calibration import Calibration
from facecore.models.calibration_file import (
    CalibrationFile,
    check_writable,
    read_calibration,
    write_calibration,
)
from facecore.models.specs import CalibrationSpec

CONTRACT = "c1-0123456789abcdef"


def spec(dataset: str = "staff", count: int = 20_000) -> CalibrationSpec:
    impostor = np.random.default_rng(1).normal(0, 0.08, count)
    genuine = np.linspace(0.3, 0.9, 37)
    return Calibration.fit(genuine, impostor, dataset=dataset, identities=201).to_spec()


def content(dataset: str = "staff", portraits: bool = True) -> CalibrationFile:
    return CalibrationFile(
        1, "0.1.0", "compact", CONTRACT, spec(dataset), spec(dataset) if portraits else None
    )


@pytest.mark.parametrize("portraits", [True, False])
def test_round_trip(tmp_path: Path, portraits: bool) -> None:
    path = tmp_path / "new folder" / "own.toml"
    written = content(portraits=portraits)
    write_calibration(path, written)
    assert read_calibration(path) == written
    assert [p.name for p in path.parent.iterdir()] == ["own.toml"]
    other = content("other", portraits)
    write_calibration(path, other)  # replaces the file
    assert read_calibration(path) == other


@given(st.text(max_size=40))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_of_a_data_set_can_be_written(tmp_path: Path, name: str) -> None:
    write_calibration(tmp_path / "own.toml", content(name, False))
    read = read_calibration(tmp_path / "own.toml").calibration.dataset
    assert read == "".join(c if c.isprintable() else "?" for c in name)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (
        tmp_path / "file" / "own.toml",
        tmp_path / "folder",
        Path(f"{tmp_path}/a\0b"),
        Path("."),
    ):
        with pytest.raises(InvalidParameter, match="cannot be written"):
            write_calibration(path, content())
        with pytest.raises(InvalidParameter, match="cannot be written"):
            check_writable(path)
    check_writable(tmp_path / "own.toml")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("format = 1", "format = 2", "format"),
        ("format = 1", "", "format"),
        ('contract = "c1-', 'contract = "c2-', "contract"),
        ('facecore = "0.1.0"', 'facecore = ""', "facecore"),
        ("[calibration]", "[calibrations]", "calibrations"),
        ("tail_scale", "tail_scales", "tail_scales"),
        ("score = 80.0", "score = 81.0", "score 80"),
        (", measured = false", "", "no such text is left"),
        ("far = 0.01", "far = nan", "far"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = tmp_path / "own.toml"
    write_calibration(path, content(portraits=False))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    if named == "no such text is left":  # a knot marked as measured is valid
        assert read_calibration(path).calibration.knots[-1].measured
        return
    with pytest.raises(InvalidParameter, match=named) as caught:
        read_calibration(path)
    assert "own.toml" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", b"\xff", b"a = ", b"#" * (2 << 20)])
def test_a_file_that_is_no_calibration(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "own.toml").write_bytes(data)
    for path in (tmp_path / "own.toml", tmp_path, tmp_path / "missing", Path("a\0b")):
        with pytest.raises(InvalidParameter):
            read_calibration(path)


@settings(max_examples=150)
@given(st.integers(0, 3000), st.integers(0, 40), st.binary(max_size=8))
def test_any_damage_is_a_typed_error_or_valid(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, insert: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    if not (folder / "sound.toml").exists():
        write_calibration(folder / "sound.toml", content())
    data = (folder / "sound.toml").read_bytes()
    (folder / "damaged.toml").write_bytes(data[:at] + insert + data[at + cut :])
    try:
        read = read_calibration(folder / "damaged.toml")
    except InvalidParameter:
        return
    scores = Calibration.from_spec(read.calibration).score(np.linspace(-1, 1, 201))
    assert (np.diff(scores) > 0).all()
