"""Identify an ONNX file by its tensors: face detector, embedder or neither."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError
from facecore.models.inference import Session, run
from facecore.models.manifest import DETECTOR_HEADS, MAX_MODEL_BYTES
from facecore.models.schema import is_file_name
from facecore.models.session import create_session
from facecore.models.specs import MAX_SIDE

__all__ = ["Candidate", "PassedOver", "recognise"]

# Neither side is a multiple of the other, so the outputs distinguish height from width.
_PROBE = (256, 320)
_STRIDES = (8, 16, 32, 64, 128)
_CROP = 112
_LEAST_DIMENSION = 64


class PassedOver(Exception):
    """A file is skipped; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model file that a pack can use.

    Attributes
    ----------
    path : Path
        Absolute.
    size : int
        Bytes.
    sha256 : str
    role : {"detector", "embedder"}
    heads : str
        Head family of a detector; empty for an embedder.
    input_name, layout : str
    height, width : int
        Input size in pixels; 0 for any.
    outputs : tuple of str
        Output names in manifest order.
    strides : tuple of int
        Strides of a detector; empty for an embedder.
    dimension : int
        Dimension of the embedding; 0 for a detector.
    max_batch : int
        Maximum pictures per run: 1, or 0 for any number.
    session : Session
        Opened on the CPU.
    """

    path: Path
    size: int
    sha256: str
    role: str
    heads: str
    input_name: str
    layout: str
    height: int
    width: int
    outputs: tuple[str, ...]
    strides: tuple[int, ...]
    dimension: int
    max_batch: int
    session: Session


def recognise(path: Path) -> Candidate:
    """Open an ONNX file and identify its role.

    The input and outputs decide.  Dynamic shapes are resolved by a run on zeros or noise.

    Raises
    ------
    PassedOver
        facecore cannot use the file; the message gives the reason.
    """
    if path.suffix.lower() != ".onnx":
        raise PassedOver("is not an ONNX file; export the model to ONNX")
    if not is_file_name(path.name):
        raise PassedOver("has a name with other characters than letters, digits, dot, _ and -")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise PassedOver(f"cannot be read: {error.strerror or error}") from error
    if not data:
        raise PassedOver("is empty")
    if data.startswith(b"version https://git-lfs"):
        raise PassedOver("is a Git LFS pointer, not the model; download the file itself")
    if len(data) > MAX_MODEL_BYTES:
        raise PassedOver(f"is larger than {MAX_MODEL_BYTES} bytes")
    try:
        session = create_session(data, name=path.name)
    except FacecoreError as error:
        raise PassedOver(error.message.removeprefix(f"{path.name}: ")) from error
    found = _by_tensors(session, path.name)
    digest = hashlib.sha256(data).hexdigest()
    return Candidate(path=path.absolute(), size=len(data), sha256=digest, session=session, **found)


def _by_tensors(session: Session, name: str) -> dict[str, Any]:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise PassedOver(f"has {len(inputs)} inputs, expected one picture")
    (tensor,) = inputs
    if tensor.type != "tensor(float)":
        raise PassedOver(f"takes {tensor.type}; convert its input to float32")
    if len(tensor.shape) != 4:
        raise PassedOver(f"takes a tensor of rank {len(tensor.shape)}, expected rank 4")
    batch = tensor.shape[0]
    if isinstance(batch, int) and batch != 1:
        raise PassedOver(
            f"takes {batch} pictures at once; export it with a batch size of 1 or a dynamic one"
        )
    if tensor.shape[1] == 3:
        layout, sides = "NCHW", tensor.shape[2:]
    elif tensor.shape[3] == 3:
        layout, sides = "NHWC", tensor.shape[1:3]
    else:
        raise PassedOver("does not take pictures of three channels")
    height, width = (side if isinstance(side, int) and side > 0 else 0 for side in sides)
    if max(height, width) > MAX_SIDE:
        raise PassedOver(f"takes {width}x{height} pixels; a side has at most {MAX_SIDE}")
    probe = _Probe(session, name, tensor.name, layout)
    common = {"input_name": tensor.name, "layout": layout}
    if bool(height) != bool(width):
        raise PassedOver("has one fixed and one dynamic input side")
    if (height, width) not in ((0, 0), (_CROP, _CROP)):
        if height == width == 160 and _vectors(probe(1, height, width)):
            raise PassedOver(
                "takes crops of 160x160 pixels, as FaceNet does: facecore aligns to the 112x112 "
                "ArcFace template, which would give wrong vectors"
            )
        return common | _detector(probe, height, width)
    if not height:
        try:
            return common | _detector(probe, 0, 0)
        except PassedOver as refused:
            try:
                return common | _embedder(probe, batch)
            except PassedOver:
                raise refused from None
    return common | _embedder(probe, batch)


@dataclass(frozen=True, slots=True)
class _Probe:
    """Run a model on zeros or noise of a given shape: output name -> array."""

    session: Session
    name: str
    input_name: str
    layout: str

    def __call__(
        self, count: int, height: int, width: int, noise: bool = False
    ) -> Mapping[str, NDArray[np.float32]]:
        shape = (count, 3, height, width) if self.layout == "NCHW" else (count, height, width, 3)
        pixels = np.zeros(shape, np.float32)
        if noise:
            pixels = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
        names = [output.name for output in self.session.get_outputs()]
        try:
            arrays = run(self.session, names, {self.input_name: pixels}, self.name)
        except FacecoreError as error:
            text = error.message.removeprefix(f"{self.name}: ")
            raise PassedOver(f"{text} (on {width}x{height} pixels)") from error
        return dict(zip(names, arrays, strict=True))


def _vectors(outputs: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Return the names of the outputs that hold one long vector per picture."""
    return [
        name
        for name, array in outputs.items()
        if array.ndim == 2 and array.shape[1] >= _LEAST_DIMENSION
    ]


def _embedder(probe: _Probe, batch: object) -> dict[str, Any]:
    outputs = probe(1, _CROP, _CROP, noise=True)
    vectors = _vectors(outputs)
    # AdaFace also outputs the norm of the vector.
    others = [a.shape for n, a in outputs.items() if n not in vectors and a.shape != (1, 1)]
    if len(vectors) != 1 or others:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
        raise PassedOver(
            f"outputs no single vector of {_LEAST_DIMENSION} numbers or more: {shapes}"
        )
    name = vectors[0]
    if outputs[name].dtype != np.float32 or not np.isfinite(outputs[name]).all():
        raise PassedOver(f"output {name} does not hold finite float32 numbers")
    dimension = outputs[name].shape[1]
    return {
        "role": "embedder",
        "heads": "",
        "height": _CROP,
        "width": _CROP,
        "outputs": (name,),
        "strides": (),
        "dimension": dimension,
        "max_batch": 1 if batch == 1 or not _takes_batches(probe, name, dimension) else 0,
    }


def _takes_batches(probe: _Probe, output: str, dimension: int) -> bool:
    try:
        return probe(3, _CROP, _CROP)[output].shape == (3, dimension)
    except PassedOver:
        return False


def _detector(probe: _Probe, height: int, width: int) -> dict[str, Any]:
    rows, columns = (height, width) if height else _PROBE
    outputs = probe(1, rows, columns)
    shapes = {name: array.shape for name, array in outputs.items()}
    heads, names, strides = _heads(shapes, rows, columns)
    _check_probabilities(heads, [outputs[name] for name in names], len(strides))
    return {
        "role": "detector",
        "heads": heads,
        "height": height,
        "width": width,
        "outputs": names,
        "strides": strides,
        "dimension": 0,
        "max_batch": 1,
    }


def _heads(
    shapes: Mapping[str, Sequence[int]], height: int, width: int
) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    """Return the head family, the outputs in manifest order, and the strides."""
    size = f"{width}x{height}"
    if {"loc", "conf", "iou"} <= set(shapes):
        raise PassedOver(
            "has the heads of YuNet before 2023 (loc, conf, iou); use a file of 2023 or later"
        )
    numbers = {name: shape[-1] if len(shape) > 1 else 0 for name, shape in shapes.items()}
    rows = {name: math.prod(shape[:-1]) for name, shape in shapes.items()}
    if sorted(numbers.values()) == [2, 4, 10] and len(set(rows.values())) == 1:
        if height % _STRIDES[2] or width % _STRIDES[2]:
            raise PassedOver(f"takes {size} pixels; RetinaFace needs multiples of {_STRIDES[2]}")
        cells = sum(math.ceil(height / s) * math.ceil(width / s) for s in _STRIDES[:3])
        if set(rows.values()) != {2 * cells}:
            raise PassedOver("looks like RetinaFace, but does not have two priors per cell")
        by_numbers = {n: name for name, n in numbers.items()}
        order = tuple(by_numbers[n] for n in DETECTOR_HEADS["retinaface"])
        return "retinaface", order, _STRIDES[:3]
    placed = {name: _stride(rows[name], height, width) for name in shapes}
    if None in placed.values():
        raise PassedOver(
            f"takes {size} pixels and is neither an embedder of 112x112 crops nor a known "
            "detector (YuNet, SCRFD, RetinaFace)"
            + (
                "; facecore does not use the landmark and attribute networks of InsightFace packs"
                if height == width and height in (96, 192)
                else ""
            )
        )
    strides = tuple(sorted({stride for stride, _ in placed.values() if stride}))  # type: ignore[misc]
    anchors = {count for _, count in placed.values()}  # type: ignore[misc]
    each = [sorted(numbers[n] for n in shapes if placed[n][0] == stride) for stride in strides]  # type: ignore[index]
    if all(found == [1, 4] for found in each):
        raise PassedOver(
            "has the heads of SCRFD without landmarks, which alignment needs; use the file "
            "with landmarks (its name ends in _bnkps or _kps)"
        )
    for heads in ("yunet", "scrfd"):
        wanted = DETECTOR_HEADS[heads]
        if len(anchors) == 1 and all(found == sorted(wanted) for found in each):
            order = _ordered(heads, wanted, numbers, placed, strides)
            return heads, order, strides
    raise PassedOver(f"has outputs that match no known detector head: {shapes}")


def _stride(rows: int, height: int, width: int) -> tuple[int, int] | None:
    """Return the stride and the anchors per cell of an output with `rows` rows."""
    for stride, anchors in product(_STRIDES, (1, 2)):
        whole = not (height % stride or width % stride)
        if whole and rows == anchors * (height // stride) * (width // stride):
            return stride, anchors
    return None


def _ordered(
    heads: str,
    wanted: Sequence[int],
    numbers: Mapping[str, int],
    placed: Mapping[str, Any],
    strides: Sequence[int],
) -> tuple[str, ...]:
    """Return output names by head, then by stride; of equal heads, "cls" precedes "obj"."""
    names: list[str] = []
    for number in wanted:
        for stride in strides:
            fitting = (n for n in numbers if numbers[n] == number and placed[n][0] == stride)
            names.append(next(n for n in fitting if n not in names))
    if heads == "yunet" and names[0].startswith("obj"):
        count = len(strides)
        names[: 2 * count] = names[count : 2 * count] + names[:count]
    return tuple(names)


def _check_probabilities(heads: str, outputs: Sequence[NDArray[np.float32]], strides: int) -> None:
    if heads == "retinaface":
        sums = outputs[1].reshape(-1, 2).sum(axis=1)
        if not np.allclose(sums, 1, atol=1e-3):
            raise PassedOver("is RetinaFace without softmax; export it with the softmax")
        return
    scores = outputs[: strides * (2 if heads == "yunet" else 1)]
    if not all(((score >= 0) & (score <= 1)).all() for score in scores):
        raise PassedOver(f"has {heads} scores outside 0..1; export it with the sigmoid")
