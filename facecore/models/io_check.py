"""Check a session's tensors against the manifest, to reject wrong shapes on loading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from facecore.errors import FacecoreError, PackCorrupt
from facecore.models.inference import Session, run
from facecore.models.manifest import (
    AttributesSpec,
    EmbedderSpec,
    LivenessSpec,
    ModelSpec,
    numbers_per_output,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import EllipsisType

    from facecore.models.specs import InputSpec

    Shape = Sequence[int | EllipsisType | None]

__all__ = ["check_io", "expected_outputs"]

# Picture side of the run on zeros if the manifest allows any; a multiple of all strides.
_ANY_SIDE = 64


def expected_outputs(
    model: ModelSpec,
) -> dict[str, Shape | None]:
    """Return the output shapes of a model for `check_io`: output name -> shape."""
    if isinstance(model, EmbedderSpec):
        return {model.output.name: (None, model.output.dimension)}
    if isinstance(model, LivenessSpec):
        # facecore reads manifests of the oldest architecture, but no longer runs the model.
        cues = 0 if model.architecture == "native-patches-112" else len(model.cues.names)
        return {model.output.name: (None, 1 + cues)}
    if isinstance(model, AttributesSpec):
        return {model.output.age: (None, model.output.ages), model.output.gender: (None,)}
    numbers = numbers_per_output(model.architecture, len(model.output.strides))
    # (image, candidate, value); some exports omit the image axis.
    return {name: (..., n) for name, n in zip(model.output.names, numbers, strict=True)}


def check_io(
    session: Session,
    spec: InputSpec,
    outputs: Mapping[str, Shape | None],
    *,
    name: str,
    max_batch: int = 1,
) -> None:
    """Check a session's input and outputs against the manifest.

    Parameters
    ----------
    session : Session
        From `facecore.models.session.create_session`.
    spec : InputSpec
        The only input that the model must have: float32, rank 4.
    outputs : mapping of str to sequence of (int or None), or None
        Required float32 outputs and their shapes.  In a shape, None stands for any size, and a
        leading ``...`` for any leading dimensions; None instead of a shape accepts any shape.
        If a required dimension is dynamic in the graph, one run on zeros decides.
    name : str
        Name of the model in error messages.
    max_batch : int
        Maximum batch size that the manifest promises; 0 for any.

    Raises
    ------
    PackCorrupt
        A tensor does not match; the message names it, with the actual and expected values.
    """
    inputs = session.get_inputs()
    if [entry.name for entry in inputs] != [spec.name]:
        names = ", ".join(entry.name for entry in inputs)
        raise PackCorrupt(f"{name}: its inputs are [{names}], the manifest has [{spec.name}]")
    _check_input(inputs[0], spec, name, max_batch)
    found = {entry.name: entry for entry in session.get_outputs()}
    open_outputs = {}
    for key, shape in outputs.items():
        if key not in found:
            raise PackCorrupt(f"{name}: has no output {key!r}, only {', '.join(found)}")
        _check_type(found[key], f"{name}: output {key}")
        if shape is not None and not _agrees(found[key].shape, shape, f"{name}: output {key}"):
            open_outputs[key] = shape
    if open_outputs:
        _check_by_running(session, spec, open_outputs, name)


def _check_input(tensor: Any, spec: InputSpec, name: str, max_batch: int) -> None:
    where = f"{name}: input {tensor.name}"
    _check_type(tensor, where)
    if len(tensor.shape) != 4:
        raise PackCorrupt(f"{where}: has rank {len(tensor.shape)}, expected 4")
    sides = dict(zip(spec.layout, tensor.shape, strict=True))
    for axis, wanted in (("C", 3), ("H", spec.height), ("W", spec.width)):
        # A dynamic side in the graph accepts the manifest's; a fixed side cannot take "any".
        if _is_fixed(sides[axis]) and sides[axis] != wanted:
            asked = wanted or "any size"
            raise PackCorrupt(f"{where}: {axis} is {sides[axis]}, the manifest says {asked}")
    if _is_fixed(sides["N"]) and (sides["N"] != 1 or max_batch != 1):
        asked = max_batch or "any number"
        raise PackCorrupt(
            f"{where}: is fixed at {sides['N']} per run, the manifest says at most {asked}"
        )


def _check_type(tensor: Any, where: str) -> None:
    if tensor.type != "tensor(float)":
        raise PackCorrupt(f"{where}: is {tensor.type}, expected tensor(float)")


def _agrees(found: Sequence[Any], wanted: Shape, where: str) -> bool:
    """Return True if `found` matches `wanted`, False if it is dynamic; raise otherwise."""
    if not found and wanted:
        return False  # ONNX Runtime also reports [] for an unknown rank
    if wanted and wanted[0] is Ellipsis:
        wanted = (*[None] * (len(found) - len(wanted) + 1), *wanted[1:])
    sure = len(found) == len(wanted)
    for have, want in zip(found, wanted, strict=False):
        if want is not None and not _is_fixed(have):
            return False
        sure = sure and (want is None or have == want)
    if not sure:
        raise PackCorrupt(f"{where}: has the shape {_show(found)}, expected {_show(wanted)}")
    return True


def _check_by_running(
    session: Session, spec: InputSpec, outputs: Mapping[str, Shape], name: str
) -> None:
    height, width = spec.height or _ANY_SIDE, spec.width or _ANY_SIDE
    shape = (1, 3, height, width) if spec.layout == "NCHW" else (1, height, width, 3)
    try:
        results = run(session, list(outputs), {spec.name: np.zeros(shape, np.float32)}, name)
    except FacecoreError as error:
        raise PackCorrupt(f"{error.message} (on an input of shape {shape})") from error
    for (key, wanted), array in zip(outputs.items(), results, strict=True):
        if not _agrees(array.shape, wanted, f"{name}: output {key}"):
            raise PackCorrupt(f"{name}: output {key}: is a scalar, expected {_show(wanted)}")


def _is_fixed(dimension: Any) -> bool:
    return isinstance(dimension, int)  # dynamic: a symbol's name or None


def _show(shape: Sequence[Any]) -> str:
    return (
        "("
        + ", ".join("any" if side is None else "…" if side is ... else str(side) for side in shape)
        + ")"
    )
