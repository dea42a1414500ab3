"""Fixtures of the operations' tests: pictures by symbol, a web server, a service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from operations.addresses import PictureServer
from operations.cases import Requests
from operations.morphs import morph
from operations.symbols import Symbols

from facecore import FaceEngine, Gallery
from facecore.operations import FaceService, ServiceConfig

TRAINING = Path(__file__).resolve().parents[2] / "weights/training"

MakeService = Callable[..., FaceService]


@pytest.fixture(scope="session")
def london(request: pytest.FixtureRequest) -> Path | None:
    """Return the London set, or None if it is absent; two pictures then replace it."""
    try:
        folder: Path = request.getfixturevalue("london_folder")
        return folder
    except pytest.skip.Exception:
        return None


@pytest.fixture(scope="session")
def symbols(
    london: Path | None,
    astronaut: NDArray[np.uint8],
    hopper: NDArray[np.uint8],
    engine: FaceEngine,
) -> Symbols:
    return Symbols(
        london,
        astronaut,
        hopper,
        recapture=_recaptured,
        morph=lambda a, b: morph(engine, a, b),
    )


def _recaptured(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a simulated photograph of the picture on a display.

    With this seed the camera resolves the display, so the attack is visible. docs/liveness.md
    measures how many attacks are not visible.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRAINING))
        import recapture

    made: NDArray[np.uint8] = recapture.recapture(picture, "lcd", 6, held_out=True)
    return made


@pytest.fixture(scope="session")
def pictures() -> Iterator[PictureServer]:
    with PictureServer() as server:
        yield server


@pytest.fixture(scope="session")
def requests(symbols: Symbols, pictures: PictureServer) -> Requests:
    return Requests(symbols, pictures)


@pytest.fixture
def gallery(tmp_path: Path, engine: FaceEngine) -> Iterator[Gallery]:
    with Gallery(tmp_path / "gallery", engine) as gallery:
        yield gallery


@pytest.fixture
def make_service(engine: FaceEngine, gallery: Gallery) -> MakeService:
    """Return a function that makes a service on the test's gallery and allows local addresses.

    Three seconds are enough on a busy machine, and short enough to wait for.
    """

    def make(**settings: Any) -> FaceService:
        given = {"allow_private_addresses": True, "download_timeout": 3.0, **settings}
        return FaceService(engine, gallery, ServiceConfig(**given))

    return make


@pytest.fixture
def service(make_service: MakeService) -> FaceService:
    return make_service()
