"""Fair timing, and what it was done on: for ``facecore bench`` and the benchmarks."""

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
    """Median seconds of each run, which take turns so that other load falls on all alike.

    Parameters
    ----------
    runs : mapping of str to callable
        Each is called with the number of the round.
    rounds : int
        Rounds that count.
    warm : int, default 3
        Rounds before them that do not.
    pause : float, default 0
        Seconds before each run, for threads that still spin for the one before.
    """
    return {name: wall for name, (wall, _) in both_clocks(runs, rounds, warm, pause).items()}


def both_clocks(
    runs: Mapping[str, Callable[[int], object]],
    rounds: int,
    warm: int = 3,
    pause: float = 0.0,
    row: int = 1,
) -> dict[str, tuple[float, float]]:
    """As `interleaved`: the median on the wall, and that of what this process's threads ran.

    With `row` above 1 every turn is that many runs in a row, of which the first does not count: it
    finds the caches full of the run before, which is a like one for some and not for others.
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
    """What it ran on, and the versions of Python, facecore, NumPy and these packages."""
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
    """`machine` in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    load = facts["load_average"]
    busy = "" if load is None else f", load average {load:.1f}"
    return f"{facts['processor']}, {facts['usable_cpus']} processors{busy}; {versions}"
