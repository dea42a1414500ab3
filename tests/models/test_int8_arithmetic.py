"""`compact-int8` computes the same on a processor without VNNI as on this one."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from facecore import FaceEngine
from facecore.models import registry

QEMU = shutil.which("qemu-x86_64")

pytestmark = [
    pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 (Debian's qemu-user) is not installed"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates an x86-64 processor"),
]

# Runs in the emulated process, where imports are slow: only NumPy and ONNX Runtime.
CHILD = """
import sys
import numpy as np, onnxruntime as ort
ort.set_default_logger_severity(3)
_, model, given, out = sys.argv
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
answers = session.run(None, {session.get_inputs()[0].name: np.load(given)})
np.savez(out, **{o.name: a for o, a in zip(session.get_outputs(), answers)})
"""


def run(
    model: Path, given: NDArray[np.float32], folder: Path, *, haswell: bool = False
) -> dict[str, NDArray[np.float32]]:
    """Return a model's outputs by name, from this processor or an emulated Haswell."""
    assert QEMU is not None
    source, out = folder / "given.npy", folder / "answers.npz"
    np.save(source, given)
    emulator = [QEMU, "-cpu", "Haswell"] if haswell else []
    command = [*emulator, os.path.realpath(sys.executable), "-c", CHILD, model, source, out]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=300)
    with np.load(out) as answers:
        return dict(answers)


def unit(answers: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    (vectors,) = answers.values()
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_vectors(astronaut: NDArray[np.uint8], tmp_path: Path) -> None:
    crop = FaceEngine().sample(astronaut).crop
    faces = np.stack([crop, crop[:, ::-1], np.roll(crop, 6, axis=1), crop // 2])
    rgb = (faces[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
    root = registry.shipped_root()
    plain = unit(run(root / "compact/embedder.onnx", rgb, tmp_path))
    model = root / "compact-int8/embedder.int8.onnx"
    here, haswell = (unit(run(model, rgb, tmp_path, haswell=old)) for old in (False, True))
    for name, vectors in (("this processor", here), ("Haswell", haswell)):
        cosines = (vectors * plain).sum(axis=1)
        print(name, cosines.round(4))
        assert cosines.min() >= 0.985
    same = (here * haswell).sum(axis=1)
    print("both", same.round(6))
    assert same.min() >= 0.999
