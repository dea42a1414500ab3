"""Interleaved timing and machine description, for ``facecore bench`` and the benchmarks."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facecore._utils.cpus import usable_cpus

__all__ = ["both_clocks", "describe", "interleaved", "machine"]


def interleaved(
    runs: Mapping[str, Callable[[int], object]], rounds: int, warm: int = 3, pause: float = 0.0
) -> dict[str, float]:
    """Time runs in turn, so that other load affects all equally; return median seconds of each.

    Parameters
    ----------
    runs : mapping of str to callable
        Each is called with the number of the round.
    rounds : int
        Number of timed rounds.
    warm : int, default 3
        Number of warm-up rounds.
    pause : float, default 0
        Seconds to wait before each run, while threads of the previous run stop spinning.
    """
    return {name: wall for name, (wall, _) in both_clocks(runs, rounds, warm, pause).items()}


def both_clocks(
    runs: Mapping[str, Callable[[int], object]],
    rounds: int,
    warm: int = 3,
    pause: float = 0.0,
    row: int = 1,
) -> dict[str, tuple[float, float]]:
    """Like `interleaved`, but return the median wall time and processor time of each run.

    If `row` is above 1, each turn makes `row` consecutive runs and ignores the first, whose caches
    still hold the data of another run.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    gc.collect()
    for turn in range(warm + rounds):
        for name, run in runs.items():
            time.sleep(pause)
            for position in range(row):
                busy, start = time.process_time(), time.perf_counter()
                run(turn)
                end = time.perf_counter()
                if turn >= warm and (position or row == 1):
                    times[name].append((end - start, time.process_time() - busy))
    medians = {name: np.median(values, axis=0) for name, values in times.items()}
    return {name: (float(wall), float(busy)) for name, (wall, busy) in medians.items()}


def machine(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Describe the machine and the versions of Python, facecore, NumPy and `packages`."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        model = next((value.strip() for key, _, value in lines if key.startswith("model n")), model)
    versions = {"python": platform.python_version()}
    for name in ("facecore", "numpy", *packages):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": model,
        "usable_cpus": usable_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": load,
        "versions": versions,
    }


def describe(facts: Mapping[str, Any]) -> str:
    """Format the result of `machine` in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    load = facts["load_average"]
    busy = "" if load is None else f", load average {load:.1f}"
    return f"{facts['processor']}, {facts['usable_cpus']} processors{busy}; {versions}"
