"""Execution providers: their names, what they are opened with, and what one lacks without them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from facecore.errors import InvalidParameter

__all__ = ["CPU", "Provider", "any_shape", "install_hint", "resolve", "with_defaults"]

CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_OPENVINO = "OpenVINOExecutionProvider"
_COREML = "CoreMLExecutionProvider"

# A name, or a name and its options.
Provider = str | tuple[str, Mapping[str, Any]]

_SHORT = {
    "CPU": CPU,
    "CUDA": _CUDA,
    "TensorRT": _TENSORRT,
    "OpenVINO": _OPENVINO,
    "CoreML": _COREML,
}
_EXAMPLE = f"use {', '.join(_SHORT)}, or ONNX Runtime's full name of one; None is the CPU"

# They compile a network for the shape of its input, and again for every other shape.
_COMPILING = frozenset({_TENSORRT, _OPENVINO, _COREML})

_INSTALL = {
    _CUDA: "needs an NVIDIA driver, CUDA and cuDNN, and onnxruntime-gpu instead of onnxruntime",
    _TENSORRT: "needs TensorRT, CUDA and cuDNN, and onnxruntime-gpu instead of onnxruntime",
    _OPENVINO: "needs onnxruntime-openvino instead of onnxruntime, and the device_type to be there",
    _COREML: "needs macOS, whose onnxruntime has it",
}


def resolve(
    providers: Sequence[Provider] | None, known: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Return the full names of providers, with the options that were given.

    Parameters
    ----------
    providers : sequence of str or (str, dict), optional
        By precedence: "CPU", "CUDA", "TensorRT", "OpenVINO", "CoreML" in any case, or the name
        that ONNX Runtime has for one.  None means the CPU.
    known : sequence of str
        All providers that ONNX Runtime has a name for, whether this build has them or not.

    Raises
    ------
    InvalidParameter
        There is no provider of such a name, or `providers` is no list of them.
    """
    if providers is None:
        return {CPU: {}}
    if isinstance(providers, str) or not isinstance(providers, Sequence) or not providers:
        raise InvalidParameter(f"providers must be a list, got {providers!r:.80}", _EXAMPLE)
    names = {name.lower(): name for name in (*_SHORT.values(), *known)}
    names |= {short.lower(): name for short, name in _SHORT.items()}
    result: dict[str, Mapping[str, Any]] = {}
    for provider in providers:
        given, options = (provider, {}) if isinstance(provider, str) else _pair(provider)
        name = names.get(given.lower())
        if name is None:
            raise InvalidParameter(f"there is no execution provider {given!r:.80}", _EXAMPLE)
        if name in result:
            raise InvalidParameter(f"provider {name} is there twice", _EXAMPLE)
        result[name] = options
    return result


def any_shape(requested: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the providers that suit a network which sees pictures of all sizes.

    TensorRT, OpenVINO and CoreML compile for each shape they meet and keep what they compiled;
    without them such a network runs on the others that were asked for, or on the CPU.
    """
    return {name: value for name, value in requested.items() if name not in _COMPILING} or {CPU: {}}


def with_defaults(name: str, given: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Return the options to open a provider with; those that were given win.

    Parameters
    ----------
    name : str
        Full name.
    given : mapping
        The caller's options.
    threads : int
        Threads inside one operator, where they are the provider's and not ONNX Runtime's.
    """
    defaults: dict[str, Any] = {}
    if name == _CUDA:
        defaults = {
            # The exhaustive search, ONNX Runtime's default, tries all algorithms on every new
            # shape: 634 ms instead of 2 ms for each (github.com/PaddlePaddle/PaddleX/pull/5057).
            "cudnn_conv_algo_search": "HEURISTIC",
            # Doubling the arena may take twice the memory that is needed.
            "arena_extend_strategy": "kSameAsRequested",
            # Templates outlive the machine that made them: float32 everywhere, not 10 bits of it.
            "use_tf32": "0",
        }
    elif name == _OPENVINO:
        # The model's own precision: bfloat16 turns a template by a cosine of 0.9997.
        defaults = {"device_type": "CPU", "precision": "ACCURACY"}
        if str(given.get("device_type", "CPU")).upper() == "CPU":
            defaults["num_of_threads"] = str(threads)
            # Else it ties its threads to the first processors, whoever is busy there: on a
            # loaded machine of two, 16 ms instead of 4 for the same work.
            defaults["load_config"] = json.dumps({"CPU": {"ENABLE_CPU_PINNING": "NO"}})
    return {**defaults, **given}


def install_hint(lacking: Sequence[str]) -> str:
    """Return what a machine needs for these providers, and the way out without them."""
    needs = [f"{name} {_INSTALL[name]}" for name in lacking if name in _INSTALL]
    return "; ".join([*needs, "or leave providers=None for the CPU, or allow the fallback"])


def _pair(provider: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(provider, tuple) and len(provider) == 2:
        name, options = provider
        if isinstance(name, str) and isinstance(options, Mapping):
            return name, options
    raise InvalidParameter(f"{provider!r:.80} is no provider and no (provider, options)", _EXAMPLE)
