"""Sessions run on the requested providers, with explicit threads and only correct tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecore._utils.cpus import cgroup_quota, usable_cpus
from facecore.errors import FacecoreError, InvalidParameter, PackCorrupt, ProviderUnavailable
from facecore.models.inference import run
from facecore.models.io_check import check_io
from facecore.models.manifest import read_manifest
from facecore.models.session import available_providers, create_session, open_model
from facecore.models.specs import InputSpec

REPO = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FACECORE_DATA", REPO.parent / "shared")) / "weights"

SPEC = InputSpec("x", "NCHW", "RGB", 8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
BATCH = ("N", 3, 8, 8)


def model(
    shape: Any = BATCH, output: Any = ("N", 4), dimension: int = 4, kind: str = "FLOAT"
) -> bytes:
    """Mean over the pixels, then a matrix product: (N,3,8,8) -> (N,dimension)."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, getattr(onnx.TensorProto, kind)
    weight = np.ones((3, dimension), onnx.helper.tensor_dtype_to_np_dtype(kind))
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, output)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(made.SerializeToString())


def test_the_default_is_the_cpu_and_explicit_threads(capfd: pytest.CaptureFixture[str]) -> None:
    session: Any = create_session(model(), name="tiny")
    assert session.get_providers() == ["CPUExecutionProvider"]
    options = session.get_session_options()
    assert options.intra_op_num_threads == usable_cpus()
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    (result,) = session.run(None, {"x": np.ones((2, 3, 8, 8), np.float32)})
    np.testing.assert_allclose(result, np.full((2, 4), 3.0))
    assert capfd.readouterr() == ("", "")


def test_threads_are_taken() -> None:
    session: Any = create_session(model(), threads=3, name="tiny")
    assert session.get_session_options().intra_op_num_threads == 3


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2", 10**6])
def test_threads_are_checked(threads: Any) -> None:
    with pytest.raises(InvalidParameter, match="threads"):
        create_session(b"", threads=threads, name="tiny")


@pytest.mark.parametrize(
    "providers",
    ["CPUExecutionProvider", [], [3], [("CPUExecutionProvider",)], ["CPUExecutionProvider"] * 2, 5],
)
def test_providers_are_checked(providers: Any) -> None:
    with pytest.raises(InvalidParameter, match="provider"):
        create_session(b"", providers=providers, name="tiny")


def test_a_provider_that_is_not_there() -> None:
    absent = "TensorrtExecutionProvider"
    if absent in available_providers():
        pytest.skip(f"this ONNX Runtime has {absent}")
    with pytest.raises(ProviderUnavailable) as caught:
        create_session(model(), providers=["tensorrt", "CPU"], name="tiny")
    assert f"{absent} is not part" in caught.value.message
    assert "CPUExecutionProvider" in caught.value.message
    session = create_session(model(), providers=[absent], allow_fallback=True, name="tiny")
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_a_provider_that_runs_nothing() -> None:
    # Built into the CPU package, always accepted, but never given a node of this model.
    provider = "AzureExecutionProvider"
    if provider not in available_providers():
        pytest.skip("this ONNX Runtime has no provider that takes nothing")
    if not hasattr(create_session(model(), name="tiny"), "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime does not tell who runs what")
    with pytest.raises(ProviderUnavailable, match="runs no part"):
        create_session(model(), providers=[provider], name="tiny")
    create_session(model(), providers=[provider], allow_fallback=True, name="tiny")
    with pytest.raises(PackCorrupt):  # the model is at fault, not the provider
        create_session(b"broken", providers=[provider], name="tiny")


def test_options_of_a_provider_are_passed() -> None:
    provider = ("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
    assert create_session(model(), providers=[provider], name="tiny").get_providers()


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_broken_model_is_corrupt(cut: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PackCorrupt, match=r"^tiny: .*ONNX Runtime"):
        create_session(model()[:cut], name="tiny")
    assert capfd.readouterr() == ("", "")


def test_weights_outside_the_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    made = onnx.load_from_string(model())
    (tmp_path / "w.bin").write_bytes(made.graph.initializer[0].raw_data)
    onnx.external_data_helper.set_external_data(made.graph.initializer[0], "w.bin")
    made.graph.initializer[0].ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackCorrupt):
        create_session(made.SerializeToString(), name="tiny")


def check(data: bytes, spec: InputSpec = SPEC, max_batch: int = 0, **outputs: Any) -> None:
    session = create_session(data, threads=1, name="tiny")
    check_io(session, spec, outputs or {"y": (None, 4)}, name="tiny", max_batch=max_batch)


def test_the_right_tensors_pass() -> None:
    check(model())
    check(model(), y=None)
    check(model(("N", 3, "H", "W")))
    check(model((1, 3, 8, 8), (1, 4)), max_batch=1)
    check(model(("N", 3, "H", "W")), InputSpec("x", "NCHW", "RGB", 0, 0, SPEC.mean, SPEC.std))
    check(model(output=("N", "D")))  # the graph leaves the dimension open, so one run decides


@pytest.mark.parametrize(
    ("build", "check_with", "message"),
    [
        ({}, {"z": None}, "no output"),
        ({}, {"y": (None, 5)}, "shape"),
        ({}, {"y": (None, None, 4)}, "shape"),
        ({"output": ("N", "D")}, {"y": (None, 5)}, "shape"),
        ({"output": ("N", "D")}, {"y": (None, 5, 1)}, "shape"),
        ({"shape": (1, 3, 8, 8), "output": (1, 4)}, {}, "fixed at 1"),
        ({"shape": (2, 3, 8, 8), "output": (2, 4)}, {"max_batch": 1}, "fixed at 2"),
        ({"shape": ("N", 3, 8, 9)}, {}, "W is 9"),
        ({"kind": "DOUBLE"}, {}, "double"),
        ({}, {"spec": InputSpec("z", "NCHW", "RGB", 8, 8, SPEC.mean, SPEC.std)}, "inputs"),
        ({}, {"spec": InputSpec("x", "NHWC", "RGB", 8, 8, SPEC.mean, SPEC.std)}, "input x"),
        ({}, {"spec": InputSpec("x", "NCHW", "RGB", 0, 0, SPEC.mean, SPEC.std)}, "any size"),
    ],
)
def test_a_wrong_tensor_never_loads(build: Any, check_with: Any, message: str) -> None:
    with pytest.raises(PackCorrupt, match=message):
        check(model(**build), **check_with)


class Failing:
    """A session that fails on every run."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, *_: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("CUDA failure 2:\n out of memory"), "CUDA failure 2: out of memory"),
        (MemoryError(), "MemoryError"),
        (ValueError("x" * 1000), "x" * 300),
    ],
)
def test_a_run_that_fails_is_a_typed_error(error: Exception, text: str) -> None:
    session: Any = Failing(error)
    with pytest.raises(FacecoreError) as caught:
        run(session, ["y"], {}, "tiny")
    assert caught.value.message == f"tiny: the model failed: {text}"
    assert caught.value.hint
    assert caught.value.__cause__ is error


def test_an_interrupted_run_stays_interrupted() -> None:
    session: Any = Failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(session, ["y"], {}, "tiny")


def test_a_real_run_that_fails_is_a_typed_error() -> None:
    session = create_session(model(), name="tiny")
    with pytest.raises(FacecoreError, match="tiny: the model failed"):
        run(session, ["y"], {"x": np.ones((1, 2, 8, 8), np.float32)}, "tiny")
    (result,) = run(session, ["y"], {"x": np.ones((1, 3, 8, 8), np.float32)}, "tiny")
    assert result.shape == (1, 4)


def test_the_real_models() -> None:
    manifest = read_manifest(REPO / "weights" / "mobilefacenet" / "pack.toml")
    detector = SHARED / "yunet" / manifest.detector.file
    embedder = SHARED / "mobilefacenet" / manifest.embedder.file
    if not (detector.is_file() and embedder.is_file()):
        pytest.skip(f"no models in {SHARED}; set FACECORE_DATA")
    open_model(manifest.detector, detector.read_bytes(), threads=1)
    session = open_model(manifest.embedder, embedder.read_bytes(), threads=1)
    (vector,) = session.run(None, {"input0": np.zeros((1, 3, 112, 112), np.float32)})
    assert vector.shape == (1, 128)
    with pytest.raises(PackCorrupt, match="inputs"):
        open_model(manifest.embedder, detector.read_bytes(), threads=1)


def cgroup(root: Path, membership: str, files: dict[str, str]) -> float | None:
    (root / "membership").write_text(membership)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return cgroup_quota(root, root / "membership")


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000"}, 2.0),
        ("0::/host/path\n", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/../../x\n", {"cpu.max": "50000 100000"}, 0.5),
        (
            "3:cpu,cpuacct:/d\n",
            {"cpu/d/cpu.cfs_quota_us": "400000", "cpu/d/cpu.cfs_period_us": "100000"},
            4.0,
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        (  # the folder's name has the controllers in another order; "cpu" is a link to it
            "3:cpuacct,cpu:/docker/d\n",
            {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"},
            1.5,
        ),
        (  # both versions at once, as in systemd's hybrid layout
            "2:cpuset:/\n1:cpu:/a\n0::/a\n",
            {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"},
            2.0,
        ),
        ("0::/\n", {"cpu.max": "150000 0"}, None),
        ("", {}, None),
        ("nonsense", {"cpu.max": "x y z"}, None),
    ],
)
def test_cgroup_quota(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    assert cgroup(tmp_path, membership, files) == quota


@pytest.mark.parametrize(
    ("affinity", "quota", "usable"),
    [(4, None, 4), (4, 2.5, 2), (1, 8.0, 1), (2, 0.5, 1), (2, 2.0, 2)],
)
def test_usable_cpus(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, usable: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    monkeypatch.setattr("facecore._utils.cpus.cgroup_quota", lambda: quota)
    assert usable_cpus() == usable
