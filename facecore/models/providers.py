"""Execution providers: names, default options and installation hints."""

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

# A name, or a (name, options) pair.
Provider = str | tuple[str, Mapping[str, Any]]

_SHORT = {
    "CPU": CPU,
    "CUDA": _CUDA,
    "TensorRT": _TENSORRT,
    "OpenVINO": _OPENVINO,
    "CoreML": _COREML,
}
_EXAMPLE = f"use {', '.join(_SHORT)} or a full ONNX Runtime name; None means the CPU"

# Providers that compile a network for each input shape.
_COMPILING = frozenset({_TENSORRT, _OPENVINO, _COREML})

_INSTALL = {
    _CUDA: "needs an NVIDIA driver, CUDA and cuDNN, and onnxruntime-gpu instead of onnxruntime",
    _TENSORRT: "needs TensorRT, CUDA and cuDNN, and onnxruntime-gpu instead of onnxruntime",
    _OPENVINO: "needs onnxruntime-openvino instead of onnxruntime, and a device of its device_type",
    _COREML: "needs onnxruntime on macOS",
}


def resolve(
    providers: Sequence[Provider] | None, known: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Return the full names of providers with their options.

    Parameters
    ----------
    providers : sequence of str or (str, dict), optional
        In order of precedence: "CPU", "CUDA", "TensorRT", "OpenVINO" or "CoreML" in any case,
        or a full ONNX Runtime name.  None means the CPU.
    known : sequence of str
        All provider names of ONNX Runtime, including those missing from this build.

    Raises
    ------
    InvalidParameter
        A provider is unknown or listed twice, or `providers` is not a list of providers.
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
            raise InvalidParameter(f"provider {name} is listed twice", _EXAMPLE)
        result[name] = options
    return result


def any_shape(requested: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the providers for a network with varying input shapes.

    Drops TensorRT, OpenVINO and CoreML, which compile and keep a network for every new shape.
    The network runs on the other requested providers, or on the CPU.
    """
    return {name: value for name, value in requested.items() if name not in _COMPILING} or {CPU: {}}


def with_defaults(name: str, given: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Return the options of a provider; the caller's override the defaults.

    Parameters
    ----------
    name : str
        Full name.
    given : mapping
        The caller's options.
    threads : int
        Threads per operator, for a provider with its own thread pool.
    """
    defaults: dict[str, Any] = {}
    if name == _CUDA:
        defaults = {
            # ONNX Runtime's default, the exhaustive search, takes 634 ms instead of 2 ms for
            # every new shape (github.com/PaddlePaddle/PaddleX/pull/5057).
            "cudnn_conv_algo_search": "HEURISTIC",
            # Doubling the arena may allocate twice the memory needed.
            "arena_extend_strategy": "kSameAsRequested",
            # Templates must agree between machines: float32, not TF32 with its 10-bit mantissa.
            "use_tf32": "0",
        }
    elif name == _OPENVINO:
        # The model's precision: bfloat16 templates have a cosine of only 0.9997 to float32 ones.
        defaults = {"device_type": "CPU", "precision": "ACCURACY"}
        if str(given.get("device_type", "CPU")).upper() == "CPU":
            defaults["num_of_threads"] = str(threads)
            # Pinning ties threads to the first processors even if those are busy: 16 ms
            # instead of 4 ms for the same work on a loaded machine with 2 processors.
            defaults["load_config"] = json.dumps({"CPU": {"ENABLE_CPU_PINNING": "NO"}})
    return {**defaults, **given}


def install_hint(lacking: Sequence[str]) -> str:
    """Return what to install for these providers, and the alternatives."""
    needs = [f"{name} {_INSTALL[name]}" for name in lacking if name in _INSTALL]
    return "; ".join([*needs, "or leave providers=None for the CPU, or allow the fallback"])


def _pair(provider: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(provider, tuple) and len(provider) == 2:
        name, options = provider
        if isinstance(name, str) and isinstance(options, Mapping):
            return name, options
    raise InvalidParameter(f"{provider!r:.80} is not a provider or (provider, options)", _EXAMPLE)
