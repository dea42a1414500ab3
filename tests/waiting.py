"""Wait for another thread or process in a test."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Return when `condition` is true; fail after `seconds` if it stays false."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not so within {seconds:g} seconds")
        time.sleep(0.002)
