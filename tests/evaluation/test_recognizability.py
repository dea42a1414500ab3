"""Separate unreadable from readable vectors, and write the section into a manifest."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facecore import FaceEngine
from facecore.errors import InvalidParameter, PackCorrupt
from facecore.evaluation.recognizability import (
    _gathering,
    fit,
    measure_vectors,
    without_section,
    write_section,
)
from facecore.evaluation.spoiled_crops import ORIGINAL, SpoiledCrops, collect, spoiled_alike
from facecore.evaluation.spoiling import ROWS, Spoiling, draw
from facecore.face.alignment import TEMPLATE
from facecore.face.detection import Face
from facecore.face.recognizability import (
    allowance,
    encode_weights,
    features,
    read_weights,
    recognizability,
)
from facecore.models.manifest import read_manifest
from facecore.models.registry import shipped_root
from facecore.models.schema import FieldError
from facecore.models.specs import CROP_FEATURES, RecognizabilitySpec

COMPACT = shipped_root() / "compact" / "pack.toml"
ABLE = np.full(600, 100, np.float32)  # the crops limit no score
FACE = Face(np.array([72, 64, 152, 180], np.float32), (TEMPLATE + 56).astype(np.float32), 1.0)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def population(dimension: int) -> tuple[np.ndarray, SpoiledCrops]:
    """Return vectors of 300 people, clear and spoiled; spoiled ones lie near one of three points.

    Vectors of one group come from one source and are spoiled alike.
    """
    rng = np.random.default_rng(3)
    places, people = rng.normal(size=(3, dimension)), 300
    clear = unit(rng.normal(size=(people, dimension)))
    which, held_out = np.arange(people) % 3, np.arange(people) % 4 == 0
    poor = unit(unit(places)[which] + 0.4 * clear)
    return np.concatenate([clear, poor]), SpoiledCrops(
        np.empty((2 * people, 0, 0, 3), np.uint8),
        np.array([f"p{i}" for i in range(people)] * 2),
        np.tile(np.arange(people), 2),
        np.array([ORIGINAL] * people + [f"kind {k}" for k in which]),
        np.concatenate([np.zeros(people, int), 1 + which]) * 2 + np.tile(held_out, 2),
        np.tile(held_out, 2),
    )


def test_gathering_vectors_are_refused_and_ordinary_ones_are_not() -> None:
    spec = read_manifest(COMPACT).embedder
    vectors, spoiled = population(spec.output.dimension)
    seen = np.random.default_rng(5).normal(size=(len(vectors), CROP_FEATURES)).astype(np.float32)
    made = measure_vectors(spec, vectors, seen, ABLE, spoiled, "a test")
    scores = recognizability(np.hstack([vectors, seen]), read_weights(made.spec))
    unseen = spoiled.held_out
    poor = spoiled.kind != ORIGINAL
    assert (scores[unseen & poor] < made.spec.limit).mean() > 0.95
    assert (scores[unseen & ~poor] < made.spec.limit).mean() <= 0.05
    assert made.spec.embedder == spec.sha256
    assert len(made.lines) == 6  # a heading of two lines and four kinds


def test_a_variant_takes_the_gate_of_its_pack() -> None:
    spec = read_manifest(COMPACT).embedder
    vectors, spoiled = population(spec.output.dimension)
    rng = np.random.default_rng(5)
    seen = rng.normal(size=(len(vectors), CROP_FEATURES)).astype(np.float32)
    gate = measure_vectors(spec, vectors, seen, ABLE, spoiled, "a test").spec
    bare = {"calibration": None, "id_portrait_calibration": None, "recognizability": None}
    variant = replace(spec, sha256="0" * 64, **bare)
    near = unit(vectors + rng.normal(0, 0.005, vectors.shape))
    made = measure_vectors(variant, near, seen, ABLE, spoiled, "a test", gate)
    assert made.spec == replace(gate, embedder="0" * 64, refused=made.spec.refused)
    assert abs(made.spec.refused - gate.refused) < 0.05
    assert len(made.lines) == 6
    with pytest.raises(InvalidParameter, match="another dimension"):
        measure_vectors(variant, near[:, :64], seen, ABLE, spoiled, "a test", gate)


def test_what_is_fitted_survives_its_text() -> None:
    rng = np.random.default_rng(1)
    vectors, readable = unit(rng.normal(size=(200, 8))), np.arange(200) % 2 == 0
    vectors[readable, 0] += 1
    weights = fit(vectors, readable)
    text, hidden = encode_weights(weights), len(weights[1])
    again = read_weights(RecognizabilitySpec("a test", 50, 0, hidden, text, "0" * 64))
    assert np.abs(recognizability(vectors, weights) - recognizability(vectors, again)).max() < 0.5


@pytest.mark.parametrize("text", ["?", "A", encode_weights((np.full((8, 2), np.nan),) * 4)])
def test_damaged_weights_are_told(text: str) -> None:
    with pytest.raises(FieldError, match="finite float16"):
        RecognizabilitySpec("a test", 50, 0, 2, text, "0" * 64)


def test_the_section_is_put_in_replaced_and_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "pack.toml"
    shutil.copy(COMPACT, path)
    bare = "\n".join(without_section(path.read_text().splitlines())) + "\n"
    path.write_text(bare)
    spec = read_manifest(path).embedder
    vectors, spoiled = population(spec.output.dimension)
    seen = np.zeros((len(vectors), CROP_FEATURES), np.float32)
    made = measure_vectors(spec, vectors, seen, ABLE, spoiled, "a test 😀").spec
    for _ in range(2):
        write_section(path, made)
        assert read_manifest(path).embedder.recognizability == made
    assert "\n".join(without_section(path.read_text().splitlines())) + "\n" == bare
    short = replace(made, weights=encode_weights((np.zeros(8),) * 4))
    with pytest.raises(PackCorrupt, match="must hold"):
        write_section(path, short)
    other = path.read_text().replace(made.embedder, "0" * 64, 1)  # another embedder's
    path.write_text(other)
    with pytest.raises(PackCorrupt):
        read_manifest(path)


def test_a_manifest_that_cannot_be_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pack.toml"
    shutil.copy(COMPACT, path)
    before, gate = path.read_bytes(), read_manifest(path).embedder.recognizability
    assert gate is not None

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InvalidParameter, match="No space left"):
        write_section(path, gate)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_crop_has_its_features() -> None:
    for crop in (np.zeros((112, 112, 3), np.uint8), np.full((112, 112, 3), 255, np.uint8)):
        seen = features(crop)
        assert seen.shape == (CROP_FEATURES,)
        assert np.isfinite(seen).all()


def test_a_spoiling_repeats_and_changes_the_picture() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (240, 240, 3), np.uint8)
    for name, row in ROWS.items():
        once, again = (row.apply(picture, FACE, seed=5) for _ in range(2))
        assert np.array_equal(once, again)
        assert np.array_equal(once, picture) == (name == "as they are")
    drawn = [draw(np.random.default_rng(7)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert Spoiling().apply(picture, FACE).shape == picture.shape


def test_crops_of_spoilings_are_aligned() -> None:
    picture = np.full((240, 240, 3), 128, np.uint8)
    for seed in range(20):
        kind, made = spoiled_alike([(picture, FACE)] * 3, np.random.default_rng(seed))
        assert kind in ("turned", "covered", "small", "blurred", "dark", "poor")
        assert [crop.shape for crop in made] == [(112, 112, 3)] * 3


def test_a_person_whose_name_is_not_utf8(compact: FaceEngine, hopper_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="1 people have a picture with a face"):
        collect(compact, [("caf\udce9", hopper_path)], copies=0)


def test_strangers_spoiled_alike_gather_only_in_their_group() -> None:
    spec = read_manifest(COMPACT).embedder
    vectors, spoiled = population(spec.output.dimension)
    before = np.concatenate([vectors[:300]] * 2)
    of_group, own = _gathering(vectors, before, spoiled, 0.5)
    for shares in (of_group, own):
        assert shares[spoiled.kind == ORIGINAL].max() < 0.01
        assert shares[spoiled.kind != ORIGINAL].min() > 0.5
    one = replace(spoiled, group=np.arange(len(vectors)))
    assert not np.any(_gathering(vectors, before, one, 0.5))  # a group of one has no other face


def test_two_poor_faces_must_be_more_alike() -> None:
    r = np.linspace(0, 100, 201)
    taken = allowance(r, 0.2)
    assert np.all(np.diff(taken) <= 0)
    assert taken[r <= 50] == pytest.approx(0.2)
    assert not taken[r >= 95].any()
    assert not allowance(r, 0.0).any()
