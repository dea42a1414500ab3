"""Crops become unit vectors, independently and in order, or raise an error."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecore import FaceEngine
from facecore.errors import FacecoreError
from facecore.face.alignment import TEMPLATE, align
from facecore.face.embedding import Embedder
from facecore.models.inference import to_tensor
from facecore.models.manifest import read_manifest
from facecore.models.session import open_model
from facecore.models.specs import InputSpec

Array = np.ndarray[Any, Any]
SPEC = read_manifest(Path(__file__).parents[2] / "weights/mobilefacenet/pack.toml").embedder


class Fake:
    """A session that answers with fixed rows and records the batch sizes."""

    def __init__(self, rows: Any) -> None:
        self.rows = np.asarray(rows, np.float32)
        self.sizes: list[int] = []

    def run(self, names: Any, feeds: dict[str, Array]) -> list[Array]:
        start = sum(self.sizes)
        self.sizes.append(len(feeds[SPEC.input.name]))
        return [self.rows[start : start + self.sizes[-1]]]


def fake_embedder(rows: Any, max_batch: int = 0) -> tuple[Embedder, Fake]:
    session: Any = Fake(rows)
    return Embedder(session, dataclasses.replace(SPEC, max_batch=max_batch)), session


@pytest.mark.parametrize(("max_batch", "sizes"), [(0, [5]), (1, [1] * 5), (2, [2, 2, 1])])
def test_batches_are_cut_to_what_the_model_takes(max_batch: int, sizes: list[int]) -> None:
    rows = np.arange(1, 16).reshape(5, 3)
    embedder, session = fake_embedder(rows, max_batch)
    vectors = embedder.embed(np.zeros((5, 112, 112, 3), np.uint8))
    assert session.sizes == sizes
    wanted = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, wanted, rtol=1e-6)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf])
def test_a_vector_without_a_direction_is_refused(bad: float) -> None:
    embedder, _ = fake_embedder([[1.0, 2.0], [bad, bad]])
    with pytest.raises(FacecoreError, match="zero or not finite"):
        embedder.embed(np.zeros((2, 112, 112, 3), np.uint8))


def test_no_crops_no_vectors() -> None:
    embedder, session = fake_embedder([])
    vectors = embedder.embed(np.empty((0, 112, 112, 3), np.uint8))
    assert vectors.shape == (0, embedder.dimension)
    assert vectors.dtype == np.float32
    assert session.sizes == []


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", ["BGR", "RGB"])
def test_the_tensor_is_what_the_manifest_asks_for(layout: str, channels: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    before = images.copy()
    spec = InputSpec("x", layout, channels, 4, 5, (1.0, 2.0, 3.0), (10.0, 20.0, 40.0))
    tensor = to_tensor(images, spec)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(images, before)
    for n, row, column, channel in np.ndindex(images.shape):
        source = 2 - channel if channels == "RGB" else channel
        wanted = (images[n, row, column, source] - spec.mean[channel]) / spec.std[channel]
        place = (n, channel, row, column) if layout == "NCHW" else (n, row, column, channel)
        assert tensor[place] == pytest.approx(wanted, rel=1e-6)
    around = np.zeros((2, 9, 10, 3), np.uint8)
    around[:, 2:6, 2:7] = images
    padded = to_tensor(images, spec, canvas=(9, 10), margin=2)
    np.testing.assert_array_equal(padded, to_tensor(around, spec))


@pytest.fixture(scope="module")
def embedder(engine: FaceEngine) -> Embedder:
    spec = engine.pack.embedder
    return Embedder(
        open_model(spec, (engine.pack.folder / spec.file).read_bytes(), threads=1), spec
    )


@pytest.fixture(scope="module")
def crops(engine: FaceEngine, astronaut: Array, hopper: Array) -> Array:
    faces = [align(image, engine.largest_face(image).landmarks) for image in (astronaut, hopper)]
    return np.stack([*faces, faces[0][:, ::-1], align(hopper, TEMPLATE)])


def test_a_vector_depends_on_its_own_crop_only(embedder: Embedder, crops: Array) -> None:
    together = embedder.embed(crops)
    assert together.shape == (len(crops), embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([embedder.embed(crop[None]) for crop in crops])
    assert (together * alone).sum(axis=1).min() >= 0.99999
    np.testing.assert_allclose(embedder.embed(crops[::-1])[::-1], together, atol=1e-4)
    # The crops differ, so a wrong order would fail above.
    assert (together @ together.T)[~np.eye(len(crops), dtype=bool)].max() < 0.999
