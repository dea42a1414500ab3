"""One server for the tests that do not change it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from server.serving import Echo, Running, running


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset proxies, because the vendor's client uses them for 127.0.0.1 too."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Running, Echo]]:
    echo = Echo()
    with running(echo) as server:
        yield server, echo


@pytest.fixture
def echo(shared: tuple[Running, Echo]) -> Echo:
    shared[1].calls.clear()
    return shared[1]


@pytest.fixture
def server(shared: tuple[Running, Echo], echo: Echo) -> Running:
    return shared[0]
