"""CPU session settings of the models: memory, batch sizes, bound tensors, threads.

    python -m benchmarks sessions
    python -m benchmarks sessions --pictures 1000 --json sessions.json

Memory is measured with mixed detector inputs of up to 1920 pixels and embedder batches of 1 and 16,
one process per setting (Linux).  Times are medians of processor time on one thread, which other
load disturbs less; settings within one process take turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

from benchmarks._binding import bound
from benchmarks._measuring import describe, machine, resident, write_json
from facecore.models.packs import load_pack
from facecore.models.session import open_model

# Setting -> arena, memory pattern, session settings, whether runs return their memory.
SETTINGS: dict[str, tuple[bool, bool, bool, bool]] = {
    "no arena, no pattern (facecore's)": (False, False, False, False),
    "arena": (True, False, False, False),
    "arena and pattern (the default)": (True, True, False, False),
    "arena, shrunk after each run": (True, False, False, True),
    "one arena for all, exact growth": (True, False, True, False),
}
BATCHES = (1, 2, 4, 8, 16, 32, 64)


def processor_ms(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return median milliseconds of processor time; the runs take turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            taken[name].append(time.process_time() - start)
    return {name: float(np.median(times[1:])) * 1e3 for name, times in taken.items()}


def child(pack: str, setting: str, pictures: int) -> None:
    """Print the memory in megabytes and the time of one setting as JSON."""
    arena, pattern, shared, shrink = SETTINGS[setting]
    loaded = load_pack(pack)
    if shared:
        memory = onnxruntime.OrtMemoryInfo(
            "Cpu",
            onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
            0,
            onnxruntime.OrtMemType.DEFAULT,
        )
        config = onnxruntime.OrtArenaCfg({"max_mem": 0, "arena_extend_strategy": 1})
        onnxruntime.create_and_register_allocator(memory, config)
    sessions = []
    for data in (loaded.detector, loaded.embedder):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena, options.enable_mem_pattern = arena, pattern
        if shared:
            options.add_session_config_entry("session.use_env_allocators", "1")
        sessions.append(
            onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        )
    options = onnxruntime.RunOptions()
    if shrink:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    names = [session.get_inputs()[0].name for session in sessions]
    rng = np.random.default_rng(0)
    opened, start, memories = resident(), time.process_time(), []
    for turn in range(pictures):
        height, width = (32 * np.exp(rng.uniform(np.log(2), np.log(60), 2)).astype(int)).tolist()
        sessions[0].run(None, {names[0]: np.zeros((1, 3, height, width), np.float32)}, options)
        crops = np.zeros((16 if turn % 8 == 0 else 1, 3, 112, 112), np.float32)
        sessions[1].run(None, {names[1]: crops}, options)
        if (turn + 1) % max(1, pictures // 4) == 0:
            memories.append(round(resident() / 1e6))
    taken = (time.process_time() - start) / pictures * 1e3
    print(json.dumps({"opened": round(opened / 1e6), "resident": memories, "ms": taken}))


def settings(pack: str, pictures: int) -> dict[str, Any]:
    """Run `child` for each setting and print a table."""
    print(
        f"\n{'setting':34}{'opened':>8}   after each quarter of {pictures} pictures   per picture"
    )
    found: dict[str, Any] = {}
    for name in SETTINGS:
        command = [sys.executable, "-m", "benchmarks", "sessions", "--pack", pack]
        command += ["--pictures", str(pictures), "--child", name]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[name] = result = json.loads(answer)
        memories = " ".join(f"{value:5}" for value in result["resident"])
        print(f"{name:34}{result['opened']:5} MB   {memories} MB   {result['ms']:17.1f} ms")
    return found


def runs(pack: str, rounds: int) -> dict[str, Any]:
    """Measure batch sizes, bound tensors and OpenCV's threads."""
    loaded = load_pack(pack)
    spec = loaded.pack.embedder
    embedder: Any = open_model(spec, loaded.embedder, threads=1)
    detector: Any = open_model(loaded.pack.detector, loaded.detector, threads=1)
    crops = np.random.default_rng(0).uniform(-1, 1, (64, 3, 112, 112)).astype(np.float32)
    batches: dict[str, Callable[[], object]] = {
        str(n): lambda n=n: embedder.run(None, {spec.input.name: crops[:n]})  # type: ignore[misc]
        for n in BATCHES
    }
    each = {n: ms / int(n) for n, ms in processor_ms(batches, rounds).items()}
    print("\nembedder, faces in one run: " + ", ".join(f"{n}: {ms:.2f}" for n, ms in each.items()))
    print("ms per face")
    picture = np.zeros((1, 3, 320, 256), np.float32)
    ways = processor_ms(
        {
            "embedder, plain": batches["1"],
            "embedder, bound": bound(embedder, crops[:1], "cpu"),
            "detector, plain": lambda: detector.run(
                None, {loaded.pack.detector.input.name: picture}
            ),
            "detector, bound": bound(detector, picture, "cpu"),
        },
        3 * rounds,
    )
    print("\n" + ", ".join(f"{name}: {ms:.2f} ms" for name, ms in ways.items()))
    found = {"batches": each, "bound": ways, "arena": arenas(loaded.detector, rounds)}
    return {**found, "opencv": opencv(3 * rounds)}


def arenas(detector: bytes, rounds: int) -> dict[str, float]:
    """Return the detector's time without an arena, relative to its time with one."""
    sessions = []
    for arena in (True, False):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena, options.enable_mem_pattern = arena, False
        sessions.append(
            onnxruntime.InferenceSession(detector, options, providers=["CPUExecutionProvider"])
        )
    name = sessions[0].get_inputs()[0].name
    found = {}
    for height, width in ((320, 256), (960, 736), (1920, 1440)):
        feed = {name: np.zeros((1, 3, height, width), np.float32)}
        times = processor_ms(
            {str(i): lambda s=s, feed=feed: s.run(None, feed) for i, s in enumerate(sessions)},  # type: ignore[misc]
            rounds,
        )
        found[f"{height}x{width}"] = times["1"] / times["0"]
    shares = ", ".join(f"{size}: {share:.2f} x" for size, share in found.items())
    print(f"\ndetector without an arena, of its time with one: {shares}")
    return found


def opencv(rounds: int) -> dict[str, dict[str, float]]:
    """Measure OpenCV's threads on typical work: processor time and wall time."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (960, 720, 3), np.uint8)
    turn = np.array([[0.4, 0.01, -50], [-0.01, 0.4, -50]], np.float32)
    work: dict[str, Callable[[], object]] = {
        "reduce 960x720 to 320": lambda: cv2.resize(
            picture, (240, 320), interpolation=cv2.INTER_AREA
        ),
        "cut out 112x112": lambda: cv2.warpAffine(picture, turn, (112, 112)),
    }
    found: dict[str, dict[str, float]] = {}
    most = cv2.getNumThreads()
    for name, run in work.items():
        taken: dict[int, list[float]] = {1: [], most: []}
        for _ in range(rounds):
            for threads in taken:
                cv2.setNumThreads(threads)
                run()
                start = time.perf_counter()
                run()
                taken[threads].append(time.perf_counter() - start)
        found[name] = {f"{n} threads": float(np.median(t)) * 1e3 for n, t in taken.items()}
        print(f"OpenCV, {name}: {', '.join(f'{k} {v:.3f} ms' for k, v in found[name].items())}")
    cv2.setNumThreads(most)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--pictures", type=int, default=300, help="of mixed sizes (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=SETTINGS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.pack, args.child, args.pictures)
        return
    facts = machine(["onnxruntime", "opencv-python-headless"])
    print(describe(facts))
    times = runs(args.pack, args.rounds)
    memory = settings(args.pack, args.pictures)
    write_json(args.json, facts, pack=args.pack, memory=memory, **times)


if __name__ == "__main__":
    main()
