"""Execution providers: resolve names, report absent ones, and agree with the CPU."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from facecore import FaceEngine
from facecore.errors import InvalidParameter, ProviderUnavailable
from facecore.models.providers import CPU, any_shape, install_hint, resolve, with_defaults
from facecore.models.session import available_providers

ACCELERATORS = {
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
    "OpenVINO": "OpenVINOExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
}
KNOWN = [*ACCELERATORS.values(), "DmlExecutionProvider", CPU]


@pytest.mark.parametrize(("short", "full"), [*ACCELERATORS.items(), ("CPU", CPU)])
def test_names_in_any_case(short: str, full: str) -> None:
    for name in (short, short.lower(), short.upper(), full, full.lower()):
        assert resolve([name], KNOWN) == {full: {}}
        assert resolve([(name, {"device_id": 1})], KNOWN) == {full: {"device_id": 1}}


def test_what_onnx_runtime_alone_has_a_name_for() -> None:
    assert list(resolve(["dmlexecutionprovider", "cuda"], KNOWN)) == [
        "DmlExecutionProvider",
        "CUDAExecutionProvider",
    ]
    assert resolve(None, KNOWN) == {CPU: {}}


@pytest.mark.parametrize("name", ["GPU", "", "CUDA ", "CUDAExecutionProvider2", "Dml", "x" * 200])
def test_there_is_no_such_provider(name: str) -> None:
    with pytest.raises(InvalidParameter, match="no execution provider") as caught:
        resolve([name], KNOWN)
    assert all(short in caught.value.hint for short in ACCELERATORS)
    with pytest.raises(InvalidParameter):  # a fallback is only for known providers
        FaceEngine(providers=[name], allow_fallback=True)


def test_the_same_provider_by_two_names() -> None:
    with pytest.raises(InvalidParameter, match="twice"):
        resolve(["CUDA", "CUDAExecutionProvider"], KNOWN)


def test_what_compiles_for_a_shape_is_kept_from_pictures_of_all_sizes() -> None:
    assert any_shape(resolve(["TensorRT", ("CUDA", {"device_id": 1})], KNOWN)) == {
        "CUDAExecutionProvider": {"device_id": 1}
    }
    for name in ("TensorRT", "OpenVINO", "CoreML", "CPU"):
        assert any_shape(resolve([name], KNOWN)) == {CPU: {}}


def test_what_the_caller_gives_wins() -> None:
    defaults = with_defaults("CUDAExecutionProvider", {}, 2)
    assert defaults["use_tf32"] == "0"
    given = with_defaults("CUDAExecutionProvider", {"use_tf32": "1"}, 2)
    assert given == {**defaults, "use_tf32": "1"}
    assert with_defaults(CPU, {}, 2) == {}


def test_threads_are_openvinos_own() -> None:
    name = "OpenVINOExecutionProvider"
    on_cpu = with_defaults(name, {}, 3)
    assert on_cpu["num_of_threads"] == "3"
    assert json.loads(on_cpu["load_config"]) == {"CPU": {"ENABLE_CPU_PINNING": "NO"}}
    on_gpu = with_defaults(name, {"device_type": "GPU"}, 3)
    assert on_gpu == {"device_type": "GPU", "precision": "ACCURACY"}


@pytest.mark.parametrize(("short", "full"), ACCELERATORS.items())
def test_what_is_absent_says_what_to_install(short: str, full: str) -> None:
    package = {"CUDA": "onnxruntime-gpu", "TensorRT": "onnxruntime-gpu", "CoreML": "macOS"}
    assert package.get(short, "onnxruntime-openvino") in install_hint([full])
    if full in available_providers():
        pytest.skip(f"this ONNX Runtime has {short}")
    with pytest.raises(ProviderUnavailable, match=full) as caught:
        FaceEngine(providers=[short], threads=1)
    assert caught.value.hint == install_hint([full])


def test_a_fallback_is_told(caplog: pytest.LogCaptureFixture) -> None:
    absent = next((s for s, full in ACCELERATORS.items() if full not in available_providers()), "")
    if not absent:
        pytest.skip("this ONNX Runtime has all providers")
    with caplog.at_level(logging.INFO):
        FaceEngine(providers=[absent], threads=1, allow_fallback=True)
    assert f"{ACCELERATORS[absent]} is not part of this ONNX Runtime" in caplog.text
    assert "running on ['CPUExecutionProvider']" in caplog.text


@pytest.mark.parametrize(("short", "full"), ACCELERATORS.items())
def test_it_agrees_with_the_cpu(
    short: str, full: str, astronaut: NDArray[np.uint8], hopper: NDArray[np.uint8]
) -> None:
    if full not in available_providers():
        pytest.skip(f"this ONNX Runtime has no {full}: {install_hint([full])}")
    cpu = FaceEngine(threads=1)
    try:
        other = FaceEngine(providers=[short], threads=1)
    except ProviderUnavailable as error:
        pytest.skip(f"{short} is built in and cannot start here: {error}")
    pictures: list[Any] = [astronaut, hopper, astronaut[:, ::-1], hopper[100:500, 50:450]]
    vectors = np.stack([cpu.embed(picture) for picture in pictures])
    assert (np.stack([other.embed(p) for p in pictures]) * vectors).sum(1).min() >= 0.9999
    batch = np.stack(list(other.embed_many(pictures * 3, batch_size=4)))  # type: ignore[arg-type]
    assert (batch * np.tile(vectors, (3, 1))).sum(1).min() >= 0.9999
    assert other.compare(astronaut, hopper).score == pytest.approx(
        cpu.compare(astronaut, hopper).score, abs=0.1
    )
    attacks = [engine.liveness(hopper).attack_score for engine in (cpu, other)]
    assert attacks[0] == pytest.approx(attacks[1], abs=0.1)


@pytest.mark.parametrize(
    ("short", "options"),
    [
        ("CUDA", {"device_id": "99"}),
        ("CUDA", {"no_such_option": "1"}),
        ("OpenVINO", {"device_type": "NO_SUCH_DEVICE"}),
        ("OpenVINO", {"precision": "no such precision"}),
        ("OpenVINO", {"no_such_option": "1"}),
    ],
)
def test_what_cannot_start_is_an_error(short: str, options: dict[str, str]) -> None:
    if ACCELERATORS[short] not in available_providers():
        pytest.skip(f"this ONNX Runtime has no {short}")
    # ONNX Runtime itself skips a provider that cannot start and runs on the CPU.
    with pytest.raises(ProviderUnavailable, match=ACCELERATORS[short]):
        FaceEngine(providers=[(short, options)], threads=1)
    engine = FaceEngine(providers=[(short, options)], threads=1, allow_fallback=True)
    assert engine.contract_id
