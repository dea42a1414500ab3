"""Each head family finds the faces that its small test network encodes, on every canvas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from networks import (
    FACES,
    SCORES,
    detector,
    retinaface_outputs,
    scrfd_outputs,
    yunet_outputs,
)

from facecore.errors import PackCorrupt
from facecore.face.decoders import FAMILIES
from facecore.face.detection import Detector
from facecore.images.picture import Picture
from facecore.models.manifest import DetectorSpec
from facecore.models.recognise import recognise
from facecore.models.session import open_model
from facecore.models.specs import DetectorOutput, InputSpec

SIZE = (160, 192)
OUTPUTS: dict[str, Any] = {
    "yunet": yunet_outputs,
    "scrfd": scrfd_outputs,
    "retinaface": retinaface_outputs,
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_decoder_reads_what_was_encoded(name: str) -> None:
    outputs = list(OUTPUTS[name](SIZE).values())
    points, scores = FAMILIES[name].decode(outputs, SIZE, (8, 16, 32), 0.5)
    order = np.argsort(-scores)
    np.testing.assert_allclose(scores[order], SCORES, atol=1e-5)
    np.testing.assert_allclose(points[order].reshape(-1, 14), FACES, atol=1e-3)
    assert points.dtype == scores.dtype == np.float32


@pytest.mark.parametrize("name", OUTPUTS)
def test_nothing_above_the_threshold(name: str) -> None:
    outputs = list(OUTPUTS[name](SIZE).values())
    points, scores = FAMILIES[name].decode(outputs, SIZE, (8, 16, 32), 0.95)
    assert points.shape == (0, 7, 2)
    assert scores.shape == (0,)


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_with_and_without_a_batch_axis_are_the_same(name: str) -> None:
    plain = [array.reshape(-1, array.shape[-1]) for array in OUTPUTS[name](SIZE).values()]
    wanted = FAMILIES[name].decode(plain, SIZE, (8, 16, 32), 0.5)
    found = FAMILIES[name].decode([array[None] for array in plain], SIZE, (8, 16, 32), 0.5)
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_another_size_are_refused(name: str) -> None:
    outputs = list(OUTPUTS[name](SIZE).values())
    with pytest.raises(PackCorrupt, match="do not fit an input of 256x160"):
        FAMILIES[name].decode(outputs, (160, 256), (8, 16, 32), 0.5)


class Seeing:
    """A network that finds given boxes by input size: (x1, y1, x2, y2, score), in its pixels."""

    def __init__(self, by_size: dict[tuple[int, int], list[tuple[float, ...]]]) -> None:
        self.by_size = by_size

    def run(self, names: Any, feed: Any) -> Any:
        height, width = feed["input"].shape[2:]
        heads = blank_yunet((height, width))
        for x1, y1, x2, y2, score in self.by_size.get((height, width), []):
            cell = int((y1 + y2) / 16) * (width // 8) + int((x1 + x2) / 16)
            heads[0][0, cell] = heads[3][0, cell] = score
            heads[6][0, cell, :2] = ((x1 + x2) / 16) % 1, ((y1 + y2) / 16) % 1
            heads[6][0, cell, 2:] = np.log((x2 - x1) / 8), np.log((y2 - y1) / 8)
        return heads


# A picture of 1,280 x 640: the coarse pass sees 320 x 160, the fine pass all of it.
BOTH = ((400, 200, 480, 300, 0.8), (100, 50, 120, 75, 0.4))  # fine, coarse: the same face


@pytest.mark.parametrize(
    ("fine", "coarse", "wanted"),
    [
        (BOTH[:1], BOTH[1:], [(400, 200, 480, 300)]),  # less sure in the other pass: confirmed
        (BOTH[:1], (), []),  # 20 pixels in the coarse pass, which finds nothing
        ([(400, 200, 456, 270, 0.8)], (), [(400, 200, 456, 270)]),  # 14 coarse pixels: too small
        ((), [(100, 50, 120, 75, 0.9)], []),  # 80 pixels in the fine pass
        ((), [(100, 50, 150, 110, 0.9)], [(400, 200, 600, 440)]),  # 200 fine pixels: seen in parts
        ([(500, 300, 518, 318, 0.9)], (), []),  # smaller than 20 pixels
        ([(500, 300, 521, 320, 0.9)], (), [(500, 300, 521, 320)]),
    ],
)
def test_the_other_scale_must_agree(
    fine: list[tuple[float, ...]], coarse: list[tuple[float, ...]], wanted: list[Any]
) -> None:
    network = Seeing({(640, 1280): list(fine), (160, 320): list(coarse)})
    found = Detector(network, blank_spec("yunet"))  # type: ignore[arg-type]
    picture = Picture.of(np.zeros((640, 1280, 3), np.uint8))
    for faces in (found.detect(picture), found.prominent_each([picture])[0]):
        np.testing.assert_allclose(
            np.array([face.box for face in faces]).reshape(-1, 4),
            np.array(wanted, np.float32).reshape(-1, 4),
            atol=1e-2,
        )


def spec_of(path: Path) -> DetectorSpec:
    found = recognise(path)
    return DetectorSpec(
        file=path.name,
        size=found.size,
        sha256=found.sha256,
        architecture=found.heads,
        license="MIT",
        source="a test",
        training_data="none",
        caveat="",
        threshold=0.5,
        input=InputSpec("input", "NCHW", "BGR", found.height, found.width, (0.0,) * 3, (1.0,) * 3),
        output=DetectorOutput(found.outputs, found.strides),
    )


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("shape", [SIZE, (320, 384), (80, 96), (320, 200)])
def test_a_fixed_canvas_is_letterboxed(tmp_path: Path, name: str, shape: tuple[int, int]) -> None:
    """The network finds faces on its canvas; the detector returns them in the picture."""
    path = detector(tmp_path / "fixed.onnx", OUTPUTS[name](SIZE), (1, 3, *SIZE))
    spec = spec_of(path)
    assert spec.architecture == name
    found = Detector(open_model(spec, path.read_bytes(), threads=1), spec)
    picture = Picture.of(np.zeros((*shape, 3), np.uint8))
    scale = found.coarse_scale(picture)
    assert shape[0] * scale <= SIZE[0] + 0.5
    assert shape[1] * scale <= SIZE[1] + 0.5
    assert found.fine_scale(picture) == scale  # no finer pass
    faces = found.detect(picture)
    assert len(faces) == 2
    for face, wanted, score in zip(faces, FACES, SCORES, strict=True):
        values = np.concatenate([face.box, face.landmarks.ravel()])
        np.testing.assert_allclose(values, wanted / scale, rtol=0.01, atol=0.6)
        assert face.confidence == pytest.approx(score, abs=1e-5)
    largest = found.prominent_each([picture])[0][0]
    np.testing.assert_allclose(largest.box, faces[0].box, atol=1e-4)


def test_a_fixed_canvas_keeps_the_shape_of_the_picture(tmp_path: Path) -> None:
    """The picture is scaled by one factor, and the rest of the canvas is black."""
    path = detector(tmp_path / "fixed.onnx", yunet_outputs(SIZE), (1, 3, *SIZE))
    spec = spec_of(path)
    seen: list[Any] = []
    session = open_model(spec, path.read_bytes(), threads=1)

    class Watching:
        def run(self, names: Any, feed: Any) -> Any:
            seen.append(feed["input"])
            return session.run(names, feed)

    Detector(Watching(), spec).detect(Picture.of(np.full((400, 240, 3), 200, np.uint8)))  # type: ignore[arg-type]
    (tensor,) = seen
    assert tensor.shape == (1, 3, *SIZE)
    lit = tensor[0, 0] > 0
    assert lit.any(axis=1).sum() == 160
    assert lit.any(axis=0).sum() == 96
    assert (tensor[0, :, :, 96:] == 0).all()


class Blank:
    """A network of open input size that finds nothing and records its input sizes."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.seen: list[tuple[int, int]] = []

    def run(self, names: Any, feed: Any) -> Any:
        size = feed["input"].shape[2:]
        self.seen.append(size)
        return BLANK[self.family](size)


def blank_yunet(size: tuple[int, int]) -> list[Any]:
    cells = [(size[0] // s) * (size[1] // s) for s in (8, 16, 32)]
    return [np.zeros((1, n, d), np.float32) for d in (1, 1, 4, 10) for n in cells]


def blank_scrfd(size: tuple[int, int]) -> list[Any]:
    cells = [(size[0] // s) * (size[1] // s) for s in (8, 16, 32)]
    return [np.zeros((2 * n, d), np.float32) for d in (1, 4, 10) for n in cells]


def blank_retinaface(size: tuple[int, int]) -> list[Any]:
    cells = 2 * sum((size[0] // s) * (size[1] // s) for s in (8, 16, 32))
    return [np.zeros((1, cells, d), np.float32) for d in (4, 2, 10)]


BLANK = {"yunet": blank_yunet, "scrfd": blank_scrfd, "retinaface": blank_retinaface}
NAMES = {
    "yunet": tuple(yunet_outputs(SIZE)),
    "scrfd": tuple(scrfd_outputs(SIZE)),
    "retinaface": tuple(retinaface_outputs(SIZE)),
}


def blank_spec(family: str) -> DetectorSpec:
    return DetectorSpec(
        file="blank.onnx",
        size=1,
        sha256="0" * 64,
        architecture=family,
        license="MIT",
        source="a test",
        training_data="none",
        caveat="",
        threshold=0.5,
        input=InputSpec("input", "NCHW", "BGR", 0, 0, (0.0,) * 3, (1.0,) * 3),
        output=DetectorOutput(NAMES[family], (8, 16, 32)),
    )


@pytest.mark.parametrize(
    ("family", "shape", "sizes"),
    [
        # Coarse, fine, and wide with its margin; sides are rounded up to multiples of 32.
        ("yunet", (1200, 2400), [(160, 320), (960, 1920), (256, 320)]),
        ("scrfd", (1200, 2400), [(320, 640), (640, 1280), (480, 640)]),
        ("retinaface", (1200, 2400), [(320, 640), (640, 1280), (480, 640)]),
        ("yunet", (250, 250), [(256, 256), (320, 320)]),
        ("scrfd", (250, 250), [(640, 640), (640, 640)]),  # enlarged, as its publisher does
    ],
)
def test_passes_belong_to_the_family(
    family: str, shape: tuple[int, int], sizes: list[tuple[int, int]]
) -> None:
    network = Blank(family)
    found = Detector(network, blank_spec(family))  # type: ignore[arg-type]
    assert found.detect(Picture.of(np.zeros((*shape, 3), np.uint8))) == []
    assert network.seen == sizes
