"""``facecore bench``: speed of this machine, measured with the installed package alone."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from facecore.cli.common import MODELS, OK, Answer, Commands
from facecore.cli.common import engine as engine_of
from facecore.errors import InvalidParameter

if TYPE_CHECKING:
    from facecore import FaceEngine

_BENCH = """\
How fast is this machine?

Compares two JPEG portraits of 960x720 pixels repeatedly, and prints the median time of a
comparison and of its stages.  Then measures embed_many, and a search among synthetic templates.
Keep the machine idle meanwhile.

example:
  facecore bench --provider CUDAExecutionProvider --json
"""
_TEMPLATES = 100_000
_PACKAGES = ("onnxruntime", "opencv-python-headless", "numba")


def add_commands(commands: Commands) -> None:
    """Add the command of this module."""
    bench = commands.add("bench", _bench, _BENCH, MODELS)
    bench.add_argument(
        "--seconds", type=float, default=10.0, help="approximate duration (default: %(default)g)"
    )


def _bench(args: argparse.Namespace) -> Answer:
    from facecore.cli import benchmark_stages
    from facecore.cli.benchmark_timing import describe, interleaved, machine

    if not (math.isfinite(args.seconds) and args.seconds > 0):
        raise InvalidParameter(f"--seconds is {args.seconds:g}, must be above 0")
    engine = engine_of(args)
    facts = machine(_PACKAGES)  # before the benchmark raises the load average
    a, b = _portraits()
    runs = benchmark_stages.runs(engine, a, b)
    one = sum(interleaved(runs, rounds=1, warm=1).values())
    medians = interleaved(runs, rounds=max(5, int(args.seconds / 2 / one)), warm=1)
    whole = medians["whole"]
    shares = {stage: medians[stage] for stage in benchmark_stages.STAGES}
    rate = _throughput(engine, (a, b), args.seconds / 4)
    search = _search(engine, args.seconds / 4)
    answer: dict[str, Any] = {
        "machine": facts,
        "pack": engine.pack.name,
        "providers": args.provider or ["CPUExecutionProvider"],
        "stages_ms": {stage: 1e3 * seconds for stage, seconds in shares.items()},
        "comparison_ms": 1e3 * whole,
        "comparisons_per_second": 1 / whole,
        "embed_many_per_second": rate,
        "search_templates": _TEMPLATES,
        "search_ms": 1e3 * search,
    }
    lines = [
        describe(facts),
        f"pack {engine.pack.name} on {', '.join(answer['providers'])}; two JPEGs of 960x720",
        *(f"  {stage:8} {1e3 * seconds:8.2f} ms, both" for stage, seconds in shares.items()),
        f"one comparison      {1e3 * whole:8.2f} ms, {1 / whole:.1f} a second",
        f"embed_many          {rate:8.1f} images a second",
        f"one search          {1e3 * search:8.2f} ms among {_TEMPLATES:,} templates, exact",
    ]
    return answer, OK, lines


def _portraits() -> tuple[bytes, bytes]:
    """Encode a portrait and its mirror image as JPEG."""
    import cv2

    from facecore import demo, images

    astronaut = images.load(demo.read("astronaut"))
    first = cv2.resize(astronaut[:, 64:448], (720, 960), interpolation=cv2.INTER_CUBIC)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    a, b = (
        cv2.imencode(".jpg", pixels, quality)[1].tobytes() for pixels in (first, cv2.flip(first, 1))
    )
    return a, b


def _throughput(engine: FaceEngine, portraits: tuple[bytes, bytes], seconds: float) -> float:
    """Measure the throughput of `embed_many` for `seconds`, in images per second."""
    batch = [*portraits] * 16
    for _ in engine.embed_many(batch):  # warm-up: opens the models of the worker threads
        pass
    start, count = time.perf_counter(), 0

    def source() -> Iterator[bytes]:
        while time.perf_counter() - start < seconds:
            yield from batch

    for _ in engine.embed_many(source(), len(batch)):
        count += 1
    return count / (time.perf_counter() - start)


def _search(engine: FaceEngine, seconds: float) -> float:
    """Measure the median time of one search among random templates, in seconds."""
    import numpy as np

    from facecore import warmup
    from facecore.cli.benchmark_timing import interleaved
    from facecore.gallery.index import ExactIndex

    dimension = engine.pack.embedder.output.dimension
    warmup(dimension)
    rng = np.random.default_rng(0)
    templates = rng.standard_normal((_TEMPLATES, dimension), np.float32)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    index = ExactIndex(dimension, keep_vectors=False)
    index.add(np.arange(_TEMPLATES), templates)
    probes = templates[rng.integers(0, _TEMPLATES, 256)]
    fetch = templates.__getitem__
    runs = {"": lambda turn: index.search(probes[turn % len(probes)], 5, fetch=fetch)}
    one = interleaved(runs, rounds=5)[""]
    return interleaved(runs, rounds=max(5, min(2000, int(seconds / one))), warm=1)[""]
