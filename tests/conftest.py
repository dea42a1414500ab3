"""Shared fixtures: reference data, engines and two pictures available everywhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray
from skimage import data

from facecore import FaceEngine
from facecore.models.pull import pull

pytest_plugins = ["galleries"]

REPO = Path(__file__).resolve().parents[1]

# For `benchmarks`, which some tests run briefly.  Appended, so that an installed `facecore` takes
# precedence.
sys.path.append(str(REPO))

# Some tests import onnxruntime before facecore turns its telemetry off.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# No deadline: on a busy machine, correct tests would exceed it.  CI runs fixed examples, so that
# a failure there is due to the change under test.
settings.register_profile("facecore", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("facecore")


def reference(part: str) -> Path:
    """Return a folder of the reference data (outside the repository), or skip the test."""
    root = Path(os.environ.get("FACECORE_DATA", REPO.parent / "shared"))
    if not (root / part).is_dir():
        pytest.skip(f"no {part}/ in the reference data in {root}; set FACECORE_DATA")
    return root / part


@pytest.fixture(scope="session")
def lfw_folder() -> Path:
    """Labeled Faces in the Wild: pairs.txt and images/."""
    return reference("lfw")


@pytest.fixture(scope="session")
def london_folder() -> Path:
    """Face Research Lab London Set: NNN_neutral.jpg and NNN_smiling.jpg."""
    return reference("faces/london")


@pytest.fixture(scope="session")
def mobilefacenet(tmp_path_factory: pytest.TempPathFactory) -> FaceEngine:
    """Engine with the pulled pack mobilefacenet, installed from the reference data."""
    weights = reference("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACECORE_WEIGHTS_MIRROR", str(weights))
        patch.setenv("FACECORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        pull("mobilefacenet", progress=False)
        return FaceEngine("mobilefacenet", threads=1)


@pytest.fixture(scope="session")
def compact() -> FaceEngine:
    """Engine with the bundled pack; if the pack is missing, tests fail instead of skipping."""
    return FaceEngine("compact", threads=1)


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> FaceEngine:
    """Default engine; FACECORE_TEST_PACK=mobilefacenet selects the other pack."""
    made: FaceEngine = request.getfixturevalue(os.environ.get("FACECORE_TEST_PACK", "compact"))
    return made


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """512x512 BGR, a face about 100 pixels high; read-only, because all tests share it."""
    image = np.ascontiguousarray(data.astronaut()[:, :, ::-1])
    image.flags.writeable = False
    return image


@pytest.fixture(scope="session")
def hopper_path() -> Path:
    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@pytest.fixture(scope="session")
def hopper(hopper_path: Path) -> NDArray[np.uint8]:
    """600x512 BGR, a face about 200 pixels high; read-only, because all tests share it."""
    image = np.asarray(cv2.imread(str(hopper_path)), np.uint8)
    image.flags.writeable = False
    return image
