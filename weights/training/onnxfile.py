"""Store weights as float16; the session or `load_widened` widens them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_half(model: onnx.ModelProto, path: Path, least_rank: int = 0) -> None:
    """Store float32 initializers of 64 numbers or more as float16 behind a Cast.

    ONNX Runtime folds the casts when it loads: the network computes in float32 at full speed,
    and the file has half the size.  Initializers with fewer axes than `least_rank` stay float32,
    for example the scales of a quantised network, which have one.
    """
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 64:
            continue
        if len(tensor.dims) < least_rank:
            continue
        values = numpy_helper.to_array(tensor)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def load_widened(path: Path) -> onnx.ModelProto:
    """Read what `save_half` wrote, with the weights as float32 and without the casts."""
    model = onnx.load(path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in stored:
            tensor = stored[node.input[0]]
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.checker.check_model(model)
    return model
