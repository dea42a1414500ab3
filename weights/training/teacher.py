"""The embedder's teacher in PyTorch: its vector, and the maps between its blocks.

ONNX Runtime spends two thirds of the teacher's time on PReLU; PyTorch runs it two to three
times faster on the same cores.
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


class Teacher:
    """``espdl/mfn_112.onnx`` as a list of PyTorch calls.

    Attributes
    ----------
    blocks : dict of str to list of str
        For each of `TAPS`, the names of the maps that end its blocks, first to last.
    """

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        graph = onnx.load(path).graph
        self.source, self.vector = graph.input[0].name, graph.output[0].name
        self.weights = {
            item.name: torch.from_numpy(numpy_helper.to_array(item).copy()).to(dtype)
            for item in graph.initializer
        }
        self.nodes = list(graph.node)
        self.dtype = dtype
        read = {name for node in self.nodes for name in node.input}
        assert self.vector not in read
        with torch.inference_mode():
            shapes = self._run(torch.zeros(1, 3, 112, 112), keep=None)
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

    def _run(self, x: Tensor, keep: Sequence[str] | None) -> dict[str, Tensor]:
        """Every tensor of the graph, or only those of `keep`."""
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

    @torch.inference_mode()
    def __call__(self, faces: NDArray[np.uint8], maps: Sequence[str] = ()) -> list[Tensor]:
        """Vectors (N, 512) of BGR faces (N, 112, 112, 3), then the named maps; float32."""
        rgb = torch.from_numpy(np.ascontiguousarray(faces[..., ::-1])).permute(0, 3, 1, 2)
        values = self._run((rgb.float() - 127.5) / 127.5, [self.vector, *maps])
        return [values[name].float() for name in (self.vector, *maps)]
