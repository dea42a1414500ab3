"""The names that `import facecore` gives, and the modules that it loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import facecore


def test_every_public_name_is_there() -> None:
    assert sorted(facecore._HOME) == sorted(facecore.__all__)
    for name in facecore.__all__:
        assert getattr(facecore, name).__name__ == name
        assert name in dir(facecore)


@pytest.mark.skipif(not os.environ.get("CI"), reason="a checkout may be tested by hand")
def test_the_wheel_is_tested_and_not_the_checkout() -> None:
    assert Path(__file__).resolve().parents[1] not in Path(facecore.__file__).resolve().parents


def test_rooms_are_found_by_their_names() -> None:
    assert facecore.errors.NoFaceDetected is facecore.NoFaceDetected
    assert facecore.images.Limits().max_pixels > 0


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'FaceMachine'"):
        _ = facecore.FaceMachine  # type: ignore[attr-defined]


def test_importing_loads_no_model_runtime() -> None:
    code = "import sys, facecore; print([n for n in sys.modules if n.split('.')[0] in HEAVY])"
    heavy = {"cv2", "numpy", "numba", "onnxruntime", "hnswlib", "skimage", "scipy", "sqlite3"}
    heavy |= {"PIL", "tqdm", "matplotlib"}
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {heavy}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_packs_can_be_listed() -> None:
    packs = {pack.name: pack for pack in facecore.list_packs()}
    assert packs["compact"].shipped
    assert packs["compact"].installed
    assert packs["compact"].manifest is not None
