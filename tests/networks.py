"""Small ONNX models: detectors whose outputs encode known faces, and embedders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
Array = NDArray[Any]

# In pixels of the network's input: box x1 y1 x2 y2, then right eye, left eye, nose and mouth.
FACES = np.array(
    [
        [37, 21, 101, 99, 55, 51, 83, 50, 70, 66, 58, 81, 81, 80],
        [140, 60, 170, 98, 148, 74, 163, 75, 156, 82, 150, 90, 162, 89],
    ],
    np.float32,
)
SCORES = (0.9, 0.8)


def save(
    path: Path,
    nodes: Sequence[Any],
    weights: dict[str, Array],
    input_shape: Sequence[Any],
    outputs: Sequence[str],
    *,
    input_name: str = "input",
    kind: int = TensorProto.FLOAT,
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(input_name, kind, input_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def detector(path: Path, outputs: dict[str, Array], input_shape: Sequence[Any]) -> Path:
    """Save a detector with the same outputs for every picture; its input only adds a zero."""
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    weights: dict[str, Array] = {"zero": np.float32(0)}
    for name, array in outputs.items():
        weights[f"{name}_value"] = np.asarray(array, np.float32)
        nodes.append(helper.make_node("Add", [f"{name}_value", "nothing"], [name]))
    return save(path, nodes, weights, input_shape, list(outputs))


def _cells(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return size[0] // stride, size[1] // stride


def _stride_of(k: int) -> int:
    return (16, 8)[k]


def yunet_outputs(size: tuple[int, int]) -> dict[str, Array]:
    """Return heads that encode face k in the cell of its centre at `_stride_of(k)`."""
    made: dict[str, Array] = {}
    for stride in STRIDES:
        rows, columns = _cells(size, stride)
        for head, numbers in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            made[f"{head}_{stride}"] = np.zeros((1, rows * columns, numbers), np.float32)
    for k, (face, score) in enumerate(zip(FACES, SCORES, strict=True)):
        stride = _stride_of(k)
        centre = (face[:2] + face[2:4]) / 2
        cell = np.floor(centre / stride)
        i = int(cell[1] * (size[1] // stride) + cell[0])
        made[f"cls_{stride}"][0, i] = score
        made[f"obj_{stride}"][0, i] = score
        made[f"bbox_{stride}"][0, i, :2] = centre / stride - cell
        made[f"bbox_{stride}"][0, i, 2:] = np.log((face[2:4] - face[:2]) / stride)
        made[f"kps_{stride}"][0, i] = face[4:] / stride - np.tile(cell, 5)
    heads = ("cls", "obj", "bbox", "kps")
    return {f"{h}_{s}": made[f"{h}_{s}"] for h in heads for s in STRIDES}


# The output names of InsightFace's det_10g: scores, boxes and landmarks, each by stride.
SCRFD_NAMES = ("448", "471", "494", "451", "474", "497", "454", "477", "500")


def scrfd_outputs(
    size: tuple[int, int], *, batched: bool = False, landmarks: bool = True
) -> dict[str, Array]:
    """Return outputs with two anchors per cell; face 0 uses the first, face 1 the second."""
    made = []
    for numbers in (1, 4, 10)[: 3 if landmarks else 2]:
        for stride in STRIDES:
            rows, columns = _cells(size, stride)
            made.append(np.zeros((2 * rows * columns, numbers), np.float32))
    for k, (face, score) in enumerate(zip(FACES, SCORES, strict=True)):
        stride = _stride_of(k)
        at = STRIDES.index(stride)
        cell = np.round((face[:2] + face[2:4]) / 2 / stride)
        anchor = cell * stride
        i = int(2 * (cell[1] * (size[1] // stride) + cell[0])) + k
        made[at][i] = score
        distance = np.concatenate([anchor - face[:2], face[2:4] - anchor])
        made[3 + at][i] = distance / stride
        if landmarks:
            made[6 + at][i] = (face[4:] - np.tile(anchor, 5)) / stride
    arrays = [array[None] if batched else array for array in made]
    return dict(zip(SCRFD_NAMES, arrays, strict=False))


def retinaface_outputs(size: tuple[int, int], *, softmax: bool = True) -> dict[str, Array]:
    """Return outputs for priors of 16/32, 64/128 and 256/512 pixels; each face uses the first."""
    sides = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
    priors = [
        (stride, (column + 0.5) * stride, (row + 0.5) * stride, side)
        for stride in STRIDES
        for row in range(math.ceil(size[0] / stride))
        for column in range(math.ceil(size[1] / stride))
        for side in sides[stride]
    ]
    box = np.zeros((1, len(priors), 4), np.float32)
    confidence = np.zeros((1, len(priors), 2), np.float32)
    confidence[..., 0] = 1
    kps = np.zeros((1, len(priors), 10), np.float32)
    for k, (face, score) in enumerate(zip(FACES, SCORES, strict=True)):
        stride, centre = _stride_of(k), (face[:2] + face[2:4]) / 2
        distances = [
            np.hypot(x - centre[0], y - centre[1]) if (s, p) == (stride, sides[stride][0]) else 1e9
            for s, x, y, p in priors
        ]
        i = int(np.argmin(distances))
        _, x, y, side = priors[i]
        middle = np.array([x, y])
        box[0, i, :2] = (centre - middle) / (0.1 * side)
        box[0, i, 2:] = np.log((face[2:4] - face[:2]) / side) / 0.2
        kps[0, i] = (face[4:] - np.tile(middle, 5)) / (0.1 * side)
        confidence[0, i] = 1 - score, score
    if not softmax:
        confidence = 5 * confidence - 1
    return {"loc": box, "conf": confidence, "landms": kps}


def embedder(
    path: Path,
    *,
    dimension: int = 96,
    layout: str = "NCHW",
    batch: Any = "N",
    side: Any = 112,
    input_name: str = "data",
    batch_dependent: bool = False,
    norm: bool = False,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Save an embedder: a random projection of the picture at 8x8.

    `batch_dependent` scales to the largest number of the whole batch and rounds, like a
    dynamically quantised layer.
    """
    rng = np.random.default_rng(3)
    nodes = []
    source = input_name
    if kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [source], ["cast"], to=TensorProto.FLOAT))
        source = "cast"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [source], ["nchw"], perm=[0, 3, 1, 2]))
        source = "nchw"
    window = {"kernel_shape": [14, 14], "strides": [14, 14]}
    nodes += [
        helper.make_node("AveragePool", [source], ["pooled"], **window),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
    ]
    numbers = 3 * (side // 14 if isinstance(side, int) else 8) ** 2
    weights: dict[str, Array] = {"w": rng.normal(0, 1, (numbers, dimension)).astype(np.float32)}
    last = "flat"
    if batch_dependent:
        weights["levels"] = np.float32(6)
        nodes += [
            helper.make_node("Abs", [last], ["size"]),
            helper.make_node("ReduceMax", ["size"], ["largest"], keepdims=0),
            helper.make_node("Div", ["levels", "largest"], ["scale"]),
            helper.make_node("Mul", [last, "scale"], ["scaled"]),
            helper.make_node("Round", ["scaled"], ["rounded"]),
        ]
        last = "rounded"
    nodes.append(helper.make_node("MatMul", [last, "w"], ["vector"]))
    outputs = ["vector"]
    if norm:
        nodes.append(helper.make_node("ReduceL2", ["vector"], ["norm"], axes=[1], keepdims=1))
        outputs.append("norm")
    sides = [side, side]
    shape = [batch, 3, *sides] if layout == "NCHW" else [batch, *sides, 3]
    return save(path, nodes, weights, shape, outputs, input_name=input_name, kind=kind)
