"""Latency of the packs' bare models on one thread, compared in one run.

python -m benchmarks models
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from facecore.errors import PackNotFound
from facecore.models.packs import load_pack
from facecore.models.session import open_model

PACKS = ("compact", "mobilefacenet")
ROUNDS = 60


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    rng = np.random.default_rng(0)
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    for name in PACKS:
        try:
            loaded = load_pack(name)
        except PackNotFound as error:
            print(f"{name} is left out: {error}")
            continue
        parts = (
            ("embedder, one face", loaded.pack.embedder, loaded.embedder, (1, 3, 112, 112)),
            ("detector, 320x256", loaded.pack.detector, loaded.detector, (1, 3, 320, 256)),
            ("detector, 640x640", loaded.pack.detector, loaded.detector, (1, 3, 640, 640)),
        )
        for title, spec, data, shape in parts:
            session = open_model(spec, data, threads=1)
            pixels = rng.uniform(-1, 1, shape).astype(np.float32)
            feed = {spec.input.name: pixels * 127 + 128 if "detector" in title else pixels}
            runs[title, name] = lambda s=session, f=feed: s.run(None, f)  # type: ignore[misc]
    # Take turns, so that other load affects all alike.
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(ROUNDS):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            times[key].append(time.perf_counter() - start)
    medians = {key: float(np.median(values[5:])) for key, values in times.items()}
    for (title, name), median in medians.items():
        peer = medians.get((title, PACKS[-1]), float("nan"))
        print(f"{title:20} {name:14} {median * 1e3:6.2f} ms   {median / peer:5.2f} x {PACKS[-1]}")


if __name__ == "__main__":
    main()
