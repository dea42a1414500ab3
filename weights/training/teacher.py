"""Run the teachers in PyTorch, for their answers and the maps between their blocks.

ONNX Runtime spends two thirds of the time of the embedder's teacher on PReLU; PyTorch runs it two
to three times faster on the same cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

# Residual stream of the teacher after these stages: (channels, side).
TAPS = {"map28": (64, 28), "map14": (128, 14), "map7": (128, 7)}


class Graph:
    """An ONNX graph as a list of PyTorch calls."""

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        graph = onnx.load(path).graph
        self.source, self.outputs = graph.input[0].name, [item.name for item in graph.output]
        self.weights = {
            item.name: torch.from_numpy(numpy_helper.to_array(item).copy())
            for item in graph.initializer
        }
        self.weights = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in self.weights.items()
        }
        self.nodes = list(graph.node)
        self.dtype = dtype

    def run(self, x: Tensor, keep: Sequence[str] | None) -> dict[str, Tensor]:
        """Return every tensor of the graph, or only those of `keep`."""
        values: dict[str, Tensor] = {
            self.source: x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        }
        for node in self.nodes:
            a = values[node.input[0]]
            if node.op_type == "Conv":
                fields = {f.name: onnx.helper.get_attribute_value(f) for f in node.attribute}
                bias = self.weights[node.input[2]] if len(node.input) > 2 else None
                pads = fields.get("pads", [0] * 4)
                out = functional.conv2d(
                    a, self.weights[node.input[1]], bias, fields.get("strides", [1, 1]),
                    pads[:2], 1, fields.get("group", 1),
                )  # fmt: skip
                if pads[:2] != pads[2:]:
                    raise ValueError("uneven padding")
            elif node.op_type == "PRelu":
                out = functional.prelu(a, self.weights[node.input[1]].ravel())
            elif node.op_type == "Relu":
                out = functional.relu(a)
            elif node.op_type == "MaxPool":
                out = functional.max_pool2d(a, 2)
            elif node.op_type == "Resize":
                out = functional.interpolate(a, scale_factor=2.0)
            elif node.op_type == "Add":
                out = a + values[node.input[1]]
            elif node.op_type == "Concat":
                out = torch.cat([values[name] for name in node.input], 1)
            elif node.op_type == "Flatten":
                out = a.flatten(1)
            else:
                raise ValueError(f"unexpected operator {node.op_type}")
            values[node.output[0]] = out
        return values if keep is None else {name: values[name] for name in keep}


class Teacher(Graph):
    """``espdl/mfn_112.onnx``, which the embedder imitates.

    Attributes
    ----------
    blocks : dict of str to list of str
        For each of `TAPS`, the names of the maps that end its blocks, first to last.
    """

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(path, dtype)
        (self.vector,) = self.outputs
        read = {name for node in self.nodes for name in node.input}
        assert self.vector not in read
        with torch.inference_mode():
            shapes = self.run(torch.zeros(1, 3, 112, 112), keep=None)
        blocks: dict[str, list[str]] = {name: [] for name in TAPS}
        for node in self.nodes:
            # A block ends with a sum or with a narrow convolution that no activation follows.
            follow = [n.op_type for n in self.nodes if node.output[0] in n.input]
            shape = tuple(shapes[node.output[0]].shape[1:])
            for name, (channels, side) in TAPS.items():
                if shape != (channels, side, side) or "PRelu" in follow:
                    continue
                ends = node.op_type == "Add" or "Add" not in follow or len(follow) > 1
                if ends and node.op_type != "PRelu" and follow != ["Concat"]:
                    blocks[name].append(node.output[0])
        self.blocks = blocks

    @torch.inference_mode()
    def __call__(self, faces: NDArray[np.uint8], maps: Sequence[str] = ()) -> list[Tensor]:
        """Vectors (N, 512) of BGR faces (N, 112, 112, 3), then the named maps; float32."""
        rgb = torch.from_numpy(np.ascontiguousarray(faces[..., ::-1])).permute(0, 3, 1, 2)
        values = self.run((rgb.float() - 127.5) / 127.5, [self.vector, *maps])
        return [values[name].float() for name in (self.vector, *maps)]


class YuNet(Graph):
    """``yunet/yunet_n_dynamic.onnx``, which the detector imitates.

    Attributes
    ----------
    units : list of (str, str)
        Input and answer, before the activation, of each pair of a pointwise and a depthwise
        convolution, in the order of the graph, without those of the heads.
    """

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(path, dtype)
        maker = {name: node for node in self.nodes for name in node.output}
        self.heads = []  # in the order of the outputs
        for name in self.outputs:
            while maker[name].op_type != "Conv":
                name = maker[name].input[0]
            self.heads.append(name)
        self.nodes = [
            node
            for node in self.nodes
            if node.op_type in ("Conv", "Relu", "MaxPool", "Resize", "Add")
        ]
        pairs = [
            (a.input[0], b.output[0])
            for a, b in zip(self.nodes, self.nodes[1:], strict=False)
            if a.op_type == b.op_type == "Conv" and b.input[0] == a.output[0]
        ]
        self.stem = self.nodes[0].output[0]
        self.units = [pair for pair in pairs if pair[1] not in self.heads]

    @torch.inference_mode()
    def __call__(self, x: Tensor, maps: Sequence[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Answers (N, cells, 16) to BGR 0..255 (N, 3, H, W), and the named maps; float32.

        A cell's answer: logits of class and objectness, four box and ten landmark numbers.
        """
        values = self.run(x, [*self.heads, *maps])
        parts = [values[name].float().flatten(2).transpose(1, 2) for name in self.heads]
        strides = len(parts) // 4
        joined = [torch.cat(parts[k::strides], dim=2) for k in range(strides)]
        return torch.cat(joined, dim=1), {name: values[name].float() for name in maps}
