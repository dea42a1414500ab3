"""What the benchmarks share: fair timing, what they ran on, and their JSON."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facecore.models.cpus import usable_cpus


def interleaved(
    runs: Mapping[str, Callable[[int], object]], rounds: int, warm: int = 3
) -> dict[str, float]:
    """Median seconds of each run, which take turns so that other load falls on all alike.

    Each is called with the number of the round; the first `warm` rounds do not count.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    for turn in range(warm + rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(turn)
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values[warm:])) for name, values in times.items()}


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


def write_json(path: Path | None, facts: Mapping[str, Any], **results: Any) -> None:
    """Write the results and what they were measured on, if a path was given."""
    if path is not None:
        answer = {"machine": dict(facts), **results}
        path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


def resident() -> int:
    """Bytes of the process's memory that no file holds (Linux: RssAnon)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("no RssAnon in /proc/self/status")
