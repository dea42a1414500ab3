"""Recognise a file's role by its tensors; refuse an unusable file with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from networks import (
    SCRFD_NAMES,
    detector,
    embedder,
    retinaface_outputs,
    save,
    scrfd_outputs,
    yunet_outputs,
)
from onnx import TensorProto, helper

from facecore.models.known import licence_in_words, read_known
from facecore.models.listing import list_packs
from facecore.models.recognise import PassedOver, recognise

OPEN = ("N", 3, "H", "W")


@pytest.mark.parametrize("size", [(320, 320), (640, 640), (160, 192)])
@pytest.mark.parametrize("family", ["yunet", "scrfd", "retinaface"])
def test_a_detector_of_a_fixed_size(tmp_path: Path, family: str, size: tuple[int, int]) -> None:
    made = {"yunet": yunet_outputs, "scrfd": scrfd_outputs, "retinaface": retinaface_outputs}
    outputs = made[family](size)
    found = recognise(detector(tmp_path / "d.onnx", outputs, (1, 3, *size)))
    assert (found.role, found.heads, found.height, found.width) == ("detector", family, *size)
    assert found.outputs == tuple(outputs)
    assert found.strides == (8, 16, 32)


def test_scrfd_outputs_in_any_order_of_the_graph(tmp_path: Path) -> None:
    outputs = scrfd_outputs((256, 320))
    shuffled = {name: outputs[name] for name in sorted(outputs, reverse=True)}
    found = recognise(detector(tmp_path / "d.onnx", shuffled, OPEN))
    assert found.outputs == SCRFD_NAMES
    assert (found.height, found.width) == (0, 0)


def test_obj_before_cls_is_put_right(tmp_path: Path) -> None:
    outputs = yunet_outputs((256, 320))
    names = [*list(outputs)[3:6], *list(outputs)[:3], *list(outputs)[6:]]
    found = recognise(detector(tmp_path / "d.onnx", {n: outputs[n] for n in names}, OPEN))
    assert found.outputs == tuple(outputs)


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        ({}, 0),
        ({"batch": 1}, 1),
        ({"layout": "NHWC"}, 0),
        ({"dimension": 512, "input_name": "input.1"}, 0),
        ({"norm": True}, 0),  # AdaFace
    ],
)
def test_an_embedder(tmp_path: Path, options: dict[str, Any], batch: int) -> None:
    found = recognise(embedder(tmp_path / "e.onnx", **options))
    assert (found.role, found.height, found.width) == ("embedder", 112, 112)
    assert found.dimension == options.get("dimension", 96)
    assert found.layout == options.get("layout", "NCHW")
    assert found.input_name == options.get("input_name", "data")
    assert (found.outputs, found.max_batch) == (("vector",), batch)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def old_yunet(path: Path) -> Path:
    outputs = {"loc": np.zeros((9, 14)), "conf": np.zeros((9, 2)), "iou": np.zeros((9, 1))}
    return detector(path, outputs, OPEN)


def logits(path: Path) -> Path:
    outputs = scrfd_outputs((256, 320))
    return detector(
        path, {n: a - 4 if n in SCRFD_NAMES[:3] else a for n, a in outputs.items()}, OPEN
    )


def two_inputs(path: Path) -> Path:
    import onnx

    tensor = helper.make_tensor_value_info
    shape = (1, 3, 112, 112)
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])],
        "two",
        [tensor(name, TensorProto.FLOAT, shape) for name in "ab"],
        [tensor("c", TensorProto.FLOAT, shape)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)
    return path


def flat(path: Path) -> Path:
    nodes = [helper.make_node("Relu", ["input"], ["y"])]
    return save(path, nodes, {}, ("N", 512), ["y"])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda p: detector(p, scrfd_outputs((256, 320), landmarks=False), OPEN), "without landm"),
        (lambda p: detector(p, retinaface_outputs((256, 320), softmax=False), OPEN), "softmax"),
        (
            lambda p: detector(p, retinaface_outputs((600, 600)), (1, 3, 600, 600)),
            "multiples of 32",
        ),
        (logits, "sigmoid"),
        (old_yunet, "YuNet before 2023"),
        (
            lambda p: detector(p, {"y": np.zeros((1, 212))}, (1, 3, 192, 192)),
            "192x192.*InsightFace",
        ),
        (lambda p: detector(p, {"y": np.zeros(1)}, (1, 3, 10**9, 10**9)), "at most 8192"),
        (lambda p: detector(p, {"y": np.zeros(1)}, (1, 8200, 320, 3)), "320x8200.*at most 8192"),
        (lambda p: embedder(p, side=160), "160x160.*FaceNet"),
        (lambda p: embedder(p, batch=4), "4 pictures at once"),
        (lambda p: embedder(p, dimension=8), "no single vector"),
        (lambda p: embedder(p, kind=TensorProto.FLOAT16), r"tensor\(float16\)"),
        (lambda p: embedder(p, kind=TensorProto.UINT8), r"tensor\(uint8\)"),
        (two_inputs, "2 inputs"),
        (flat, "rank 2"),
        (lambda p: write(p, b""), "empty"),
        (lambda p: write(p, b"not a model"), "ONNX Runtime does not accept it"),
        (lambda p: write(p, b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        (lambda p: write(p.with_suffix(".pth"), b"x"), "not an ONNX file"),
        (lambda p: write(p.with_name("é.onnx"), b"x"), "name with other characters"),
        (lambda p: p, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, make: Any, why: str) -> None:
    with pytest.raises(PassedOver, match=why):
        recognise(make(tmp_path / "model.onnx"))


def test_known_models() -> None:
    known = read_known()
    names = {model.name for model in known.values()}
    assert names >= {
        "yunet_2023mar",
        "yunet_2026may",
        "sface_2021dec",
        "sface_2021dec_int8",
        "auraface_v1",
        "det_10g",
        "det_500m",
        "w600k_r50",
        "w600k_mbf",
        "glintr100",
    }
    for model in known.values():
        assert model.checked or model.calibration is None


def test_packs_that_nobody_ran_say_so_and_agree_with_what_is_known() -> None:
    known, listed = read_known(), {pack.name: pack for pack in list_packs()}
    for name in ("sface", "sface-int8", "auraface"):
        pack = listed[name]
        assert "not calibrated: never run here" in pack.summary
        assert pack.manifest is not None
        assert pack.manifest.embedder.calibration is None
        for model in pack.manifest.models.values():
            entry = known[model.sha256]
            assert not entry.checked
            assert (model.size, model.license) == (entry.size, entry.license)
            assert (model.input.channels, model.input.mean) == (entry.channels, entry.mean)
            assert "never run" in model.caveat


def test_every_table_that_ships_is_bound_to_its_embedder() -> None:
    for pack in list_packs():
        assert pack.manifest is not None
        table = pack.manifest.embedder.calibration
        if table is not None:
            assert table.embedder == pack.manifest.embedder.sha256, pack.name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MIT", "free to use"),
        ("Apache-2.0", "free to use"),
        ("InsightFace models: non-commercial research", "non-commercial research only"),
        ("code MIT, models for non-commercial research only", "non-commercial research only"),
        ("no commercial use permitted", "ask the publisher"),
        ("Proprietary (limited evaluation licence)", "ask the publisher"),
        ("not stated", "ask the publisher"),
    ],
)
def test_a_licence_in_words(name: str, words: str) -> None:
    assert words in licence_in_words(name)
