"""Lower bound on time ("floor"): only the engine's OpenCV decoding and ONNX Runtime runs.

An untimed run of the engine records which bytes it decodes at which scale, and the shapes of its
model runs.  The floor repeats exactly these calls, with noise as pixels: no file reading, no header
checks, no resizing, no candidate decoding, no alignment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest.mock import patch

import cv2
import numpy as np
import onnxruntime as ort

from facecore._utils.cpus import usable_cpus
from facecore.models.packs import Pack, load_pack
from facecore.models.session import open_model

Shape = tuple[int, ...]
Run = Callable[[int], object]

STAGES = ("decoding", "detector", "embedder")


@dataclass
class Trace:
    """Arguments of all `cv2.imdecode` calls, and shapes of all runs of the two models."""

    decodes: list[tuple[Any, ...]] = field(default_factory=list)
    detector: list[Shape] = field(default_factory=list)
    embedder: list[Shape] = field(default_factory=list)

    def needed(self) -> list[tuple[Any, ...]]:
        """Return one decoding per file, at the finest scale: the floor decodes once."""
        found: dict[int, tuple[Any, ...]] = {}
        for arguments in self.decodes:  # keeps the files alive, so that no address is reused
            file = arguments[0].ctypes.data
            if file not in found or decode_scale(arguments) < decode_scale(found[file]):
                found[file] = arguments
        return list(found.values())

    def scales(self) -> list[int]:
        """Return the reduction factor of each decoded picture: 1, 2, 4 or 8."""
        return [decode_scale(arguments) for arguments in self.decodes]


def decode_scale(arguments: Sequence[Any]) -> int:
    """Return the scale that these arguments request from `cv2.imdecode`."""
    flags = arguments[1]
    if flags < 0:  # IMREAD_UNCHANGED
        return 1
    bits = ((2, cv2.IMREAD_REDUCED_GRAYSCALE_2), (4, cv2.IMREAD_REDUCED_GRAYSCALE_4))
    bits += ((8, cv2.IMREAD_REDUCED_GRAYSCALE_8),)
    return next((scale for scale, bit in bits if flags & bit), 1)


@contextmanager
def traced(pack: Pack) -> Iterator[Trace]:
    """Record decodings and model runs in all threads while the context is active."""
    trace, decode, run = Trace(), cv2.imdecode, ort.InferenceSession.run

    def noted_decode(*arguments: Any) -> Any:
        trace.decodes.append(arguments)
        return decode(*arguments)

    def noted_run(session: Any, names: Any, feed: Any, *rest: Any) -> Any:
        outputs = {output.name for output in session.get_outputs()}
        (tensor,) = feed.values()
        if pack.embedder.output.name in outputs:
            trace.embedder.append(tensor.shape)
        elif set(pack.detector.output.names) <= outputs:
            trace.detector.append(tensor.shape)
        return run(session, names, feed, *rest)

    with (
        patch.object(cv2, "imdecode", noted_decode),
        patch.object(ort.InferenceSession, "run", noted_run),
    ):
        yield trace
    if not (trace.decodes and trace.detector and trace.embedder):
        raise SystemExit("the engine decodes or runs its models in a way that is not seen here")


class Clock(NamedTuple):
    """Wall time and total processor time in seconds."""

    wall: float
    processors: float

    @classmethod
    def now(cls) -> Clock:
        return cls(time.perf_counter(), time.process_time())

    def passed(self) -> Clock:
        now = Clock.now()
        return Clock(now.wall - self.wall, now.processors - self.processors)


class Floor:
    """Decoding and bare model runs, with the engine's session settings."""

    def __init__(self, pack: str) -> None:
        loaded = load_pack(pack)
        self.workers = usable_cpus()
        self.pool = ThreadPoolExecutor(self.workers)
        specs = {"detector": loaded.pack.detector, "embedder": loaded.pack.embedder}
        self._names = {role: spec.input.name for role, spec in specs.items()}
        self._sessions = {
            (role, threads): open_model(spec, getattr(loaded, role), threads=threads)
            for role, spec in specs.items()
            for threads in {1, self.workers}
        }
        self._rng = np.random.default_rng(0)
        self._tensors: dict[Shape, Any] = {}

    def _run(self, role: str, shape: Shape, threads: int) -> None:
        if shape not in self._tensors:
            self._tensors[shape] = self._rng.uniform(0, 255, shape).astype(np.float32)
        feed = {self._names[role]: self._tensors[shape]}
        self._sessions[role, threads].run(None, feed)

    def stages(self, trace: Trace) -> dict[str, Clock]:
        """Time the three stages over many pictures, one after the other, on all processors.

        Each stage runs with one thread per processor, and with models that use all processors
        per run; the faster variant counts.
        """
        decodes = trace.needed()
        return {
            "decoding": self._timed(
                lambda i: cv2.imdecode(*decodes[i]), len(decodes), self.workers
            ),
            "detector": self._model("detector", trace.detector),
            "embedder": self._model("embedder", trace.embedder),
        }

    def _model(self, role: str, shapes: Sequence[Shape]) -> Clock:
        times = []
        for threads in {1, self.workers}:

            def run(i: int, threads: int = threads) -> None:
                self._run(role, shapes[i], threads)

            for i in {shape: i for i, shape in enumerate(shapes)}.values():
                run(i)
            times.append(self._timed(run, len(shapes), self.workers // threads))
        return min(times)

    def _timed(self, run: Callable[[int], object], count: int, workers: int) -> Clock:
        start = Clock.now()
        if workers == 1:
            for i in range(count):
                run(i)
        else:
            list(self.pool.map(run, range(count)))
        return start.passed()

    def pair(self, trace: Trace) -> dict[str, Run]:
        """Return the variants of the floor for the two pictures of a comparison, by name."""
        decodes = trace.needed()
        faces = [shape for shape in trace.embedder for _ in range(shape[0])]
        single = [(1, *shape[1:]) for shape in faces]
        batches: dict[str, list[Shape]] = {"one run for both": [(len(faces), *faces[0][1:])]}
        batches["a run for each"] = single

        def find(part: int, parts: int, threads: int) -> None:
            for arguments in decodes[part::parts]:
                cv2.imdecode(*arguments)
            for shape in trace.detector[part::parts]:
                self._run("detector", shape, threads)

        def embed(shapes: Sequence[Shape], threads: int) -> None:
            for shape in shapes:
                self._run("embedder", shape, threads)

        def serial(shapes: Sequence[Shape], threads: int) -> None:
            find(0, 1, threads)
            embed(shapes, threads)

        def half(part: int) -> None:
            find(part, 2, 1)
            embed(single[part::2], 1)

        def parallel(first: Callable[[int], None]) -> None:
            other = self.pool.submit(first, 1)
            first(0)
            other.result()

        def together(turn: int) -> None:
            parallel(lambda part: find(part, 2, 1))
            embed(batches["one run for both"], self.workers)

        runs: dict[str, Run] = {}
        for threads in sorted({1, self.workers}):
            for name, shapes in batches.items():
                title = f"one after the other, {threads} threads, embedder {name}"
                runs[title] = lambda turn, s=shapes, t=threads: serial(s, t)  # type: ignore[misc]
        if self.workers > 1:
            runs["at the same time, embedder a run for each"] = lambda turn: parallel(half)
            runs["at the same time, embedder one run for both"] = together
        return runs


def beside(parts: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Print the times of the stages and of `name`; return the ratios of their rates.

    Each part has a number of images, and a `Clock` for each of `STAGES` and for `name`.
    """
    count = sum(part["images"] for part in parts)
    totals = {key: np.sum([part[key] for part in parts], axis=0) for key in (*STAGES, name)}
    totals["floor"] = np.sum([totals[stage] for stage in STAGES], axis=0)
    print("  an image         on the wall   of all processors")
    for key in (*STAGES, "floor", name):
        wall, processors = totals[key] / count * 1e3
        print(f"  {key:12} {wall:12.2f} ms {processors:14.2f} ms")
    ratio, by_processor = (totals["floor"] / totals[name]).tolist()
    median = float(
        np.median([sum(part[s].wall for s in STAGES) / part[name].wall for part in parts])
    )
    print(
        f"{count / totals[name][0]:.1f} images a second, {ratio:.3f} of the floor's "
        f"{count / totals['floor'][0]:.1f} (median of {len(parts)} turns {median:.3f}; "
        f"by processor time {by_processor:.3f})"
    )
    return {"ratio": ratio, "processor_time_ratio": by_processor, "median_ratio": median}
