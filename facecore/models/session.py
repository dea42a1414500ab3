"""Open ONNX Runtime sessions: requested providers, explicit threads, checked tensors."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from facecore._utils.cpus import usable_cpus
from facecore._utils.forks import FORK_LOCK, leak_in_children
from facecore._utils.malloc import keep_pages
from facecore.errors import InvalidParameter, PackCorrupt, ProviderUnavailable
from facecore.models.inference import ProcessSession, Session
from facecore.models.io_check import check_io, expected_outputs
from facecore.models.providers import (
    CPU,
    Provider,
    any_shape,
    install_hint,
    resolve,
    with_defaults,
)

if TYPE_CHECKING:
    from facecore.models.manifest import ModelSpec

__all__ = ["CPU", "Provider", "available_providers", "create_session", "open_model"]

_logger = logging.getLogger(__name__)


def available_providers() -> list[str]:
    """Return the execution providers that this ONNX Runtime was built with."""
    return list(_onnxruntime().get_available_providers())


def open_model(
    model: ModelSpec,
    data: bytes,
    *,
    providers: Sequence[Provider] | None = None,
    threads: int | None = None,
    allow_fallback: bool = False,
) -> Session:
    """Create the session of a pack's model and check its tensors against the manifest.

    A forked process opens the model again when it first uses the session.

    A model without a fixed input size, such as most detectors, does not run on providers that
    would compile it for every size: see `facecore.models.providers.any_shape`.

    Parameters
    ----------
    model : ModelSpec
        The model's section of the manifest.
    data : bytes
        The model, as `facecore.models.packs.load_pack` returns it.
    providers, threads, allow_fallback
        As in `create_session`.
    """
    if not (model.input.height and model.input.width):
        requested = resolve(providers, _known())
        suited = any_shape(requested)
        providers = list(suited.items())
        if set(suited) != set(requested):
            _logger.info(
                "%s: takes pictures of all sizes, so it runs on %s", model.file, ", ".join(suited)
            )

    def create() -> Session:
        session = create_session(
            data,
            providers=providers,
            threads=threads,
            allow_fallback=allow_fallback,
            name=model.file,
        )
        max_batch = getattr(model, "max_batch", 1)  # a detector takes one picture per run
        outputs = expected_outputs(model)
        check_io(session, model.input, outputs, name=model.file, max_batch=max_batch)
        return session

    return ProcessSession(create)


def create_session(
    model: bytes,
    *,
    providers: Sequence[Provider] | None = None,
    threads: int | None = None,
    allow_fallback: bool = False,
    name: str,
) -> Session:
    """Create an ONNX Runtime session that runs on the requested providers.

    ONNX Runtime drops a provider that it cannot start, with a warning at most, and uses the
    CPU. This function raises an error instead, unless `allow_fallback`. The same applies if
    ONNX Runtime reports that only the CPU runs nodes although others were requested. Single
    nodes that a provider does not support may always run on the CPU.

    Parameters
    ----------
    model : bytes
        Complete ONNX model. Weights in separate files are refused: no hash covers them.
    providers : sequence of str or (str, dict), optional
        By precedence, with their options: "CPU", "CUDA", "TensorRT", "OpenVINO", "CoreML", or
        a full ONNX Runtime name. None means the CPU.
    threads : int, optional
        Threads per operator; by default the number of usable processors. Always explicit: the
        default of ONNX Runtime, one pinned thread per core of the machine, fails in containers.
    allow_fallback : bool
        Use the CPU, and log a warning, if a provider is not available.
    name : str
        Name of the model in error messages.

    Returns
    -------
    Session
        An ``onnxruntime.InferenceSession``.

    Raises
    ------
    ProviderUnavailable
        A provider is not available.
    PackCorrupt
        ONNX Runtime does not accept the model.
    InvalidParameter
        A provider is unknown, or `providers` or `threads` is invalid.
    """
    requested = resolve(providers, _known())
    threads = _thread_count(threads)
    keep_pages()  # a run allocates its memory anew: facecore's sessions have no arena
    available = available_providers()
    usable = {
        key: with_defaults(key, options, threads)
        for key, options in requested.items()
        if key in available
    }
    problem = ""
    if len(usable) < len(requested):
        lacking = [key for key in requested if key not in available]
        problem = f"{', '.join(lacking)} is not part of this ONNX Runtime"
        if not allow_fallback:
            raise _unavailable(problem, name, lacking)
    try:
        session = _open(model, usable or {CPU: {}}, threads, name)
        problem = _dropped(session, usable) or problem
    except PackCorrupt as error:
        if not usable or set(usable) == {CPU}:
            raise
        # A model that opens on the CPU is not corrupt: the provider failed.
        session = _open(model, {CPU: {}}, threads, name)
        problem = error.message.removeprefix(f"{name}: ")
    if problem:
        if not allow_fallback:
            raise _unavailable(problem, name, list(usable))
        _logger.warning("%s: %s; running on %s", name, problem, session.get_providers())
    return session


def _open(
    model: bytes, providers: Mapping[str, Mapping[str, Any]], threads: int, name: str
) -> Session:
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Waiting threads sleep. Spinning makes a single busy model slightly faster on an idle
    # machine, and everything slower elsewhere: an engine has several models with separate
    # threads, and the spinning threads of idle models would slow the busy model down. Measured
    # on two busy cores, detector and embedder in turn: 8 ms asleep, 24 ms spinning.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # An arena keeps the memory of the largest concurrent inputs until the session ends, and ONNX
    # Runtime keeps a memory pattern for every input shape. With a detector, which takes pictures
    # of all sizes, both grow for days. Without an arena, a run takes 3 % more time at the sizes of
    # a comparison and 20 % at 1920 pixels (python -m benchmarks sessions).
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Every failure arrives as an exception; the log would only repeat it on standard error.
    options.log_severity_level = 4
    # Weights outside the model would be read from the working directory, unhashed.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    if set(providers) != {CPU}:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        with FORK_LOCK:  # a child would inherit locks that are never released
            session = ort.InferenceSession(
                bytes(model),
                options,
                providers=[(key, dict(value)) for key, value in providers.items()],
                enable_fallback=0,  # the fallback prints to standard output and tries the CPU
            )
            leak_in_children(session)
        session.disable_fallback()  # nor during run()
    except Exception as error:  # the only base that ONNX Runtime's errors have
        text = " ".join(str(error).split())
        raise PackCorrupt(f"{name}: ONNX Runtime does not accept it: {text:.300}") from error
    result: Session = session
    return result


def _dropped(session: Any, requested: Mapping[str, Any]) -> str:
    """Describe why the requested providers do not run; empty if they do, or if one of them does."""
    lacking = [key for key in requested if key not in session.get_providers()]
    if lacking:
        return f"ONNX Runtime could not start {', '.join(lacking)}"
    wanted = set(requested) - {CPU}
    assignments = getattr(session, "get_provider_graph_assignment_info", None)
    if not wanted or assignments is None:
        return ""
    used = {part.ep_name for part in assignments()}
    if used and not used & wanted:
        return f"{', '.join(sorted(wanted))} runs no part of the model"
    return ""


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return usable_cpus()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise InvalidParameter(f"threads must be an integer within 1..1024, got {threads!r:.40}")
    return threads


def _unavailable(problem: str, name: str, lacking: Sequence[str]) -> ProviderUnavailable:
    names = ", ".join(available_providers())
    return ProviderUnavailable(f"{name}: {problem}; available: {names}", install_hint(lacking))


def _known() -> list[str]:
    return list(_onnxruntime().get_all_providers())


def _onnxruntime() -> Any:
    # On Linux, versions from 1.29 send telemetry unless this is set before the first import.
    if "ORT_DISABLE_TELEMETRY" not in os.environ:
        if "onnxruntime" in sys.modules:
            _logger.warning(
                "onnxruntime was imported before facecore could turn off its telemetry; "
                "set ORT_DISABLE_TELEMETRY=1 in the environment"
            )
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # Imported here: loading it takes a while, and listing packs does not need it.
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]

    return onnxruntime
