"""Execution providers against the CPU: speed by batch size, agreement, cost of transfers.

    python -m benchmarks gpu
    python -m benchmarks gpu --provider TensorRT --pack mobilefacenet --json gpu.json
    python -m benchmarks gpu --provider OpenVINO

Without --provider, measures CUDA with TF32 off (facecore's default) and on, and TensorRT if
available; OpenVINO is also measured with bfloat16.  If no provider is available, says so and exits
with status 0.  Prints the embedder's faces per second by batch size, and those of the CPU with all
processors.  "bound" keeps input and output on the device; the difference is the cost of transfers.
The first run of a batch size is listed separately, because providers compile or tune then.
Agreement is the lowest cosine between the provider's and the CPU's vectors, for 64 varied crops and
for whole pictures of several sizes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._binding import bound
from benchmarks._measuring import describe, interleaved, machine, resident, write_json
from facecore import FaceEngine
from facecore._utils.cpus import usable_cpus
from facecore.demo import pictures
from facecore.errors import ProviderUnavailable
from facecore.face.embedding import Embedder
from facecore.models.inference import to_tensor
from facecore.models.packs import load_pack
from facecore.models.providers import Provider
from facecore.models.session import create_session, open_model

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
AGREE = 0.9999
# (height, width): the detector's coarse pass, a camera's picture, and the largest input.
INPUTS = ((320, 256), (640, 480), (1920, 1440))

VARIANTS: dict[str, list[Provider]] = {
    "CUDA": ["CUDA"],
    "CUDA, TF32": [("CUDA", {"use_tf32": "1"})],
    "TensorRT": ["TensorRT", "CUDA"],
    "OpenVINO": ["OpenVINO"],
    "OpenVINO, bfloat16": [
        (
            "OpenVINO",
            {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}'},
        )
    ],
}


def crops(engine: FaceEngine) -> NDArray[np.uint8]:
    """Return 64 crops of two people: rotated, mirrored, brighter, darker and noisy."""
    rng = np.random.default_rng(0)
    found = [engine.sample(picture).crop for picture in pictures().values()]
    made = []
    for i in range(64):
        turn = cv2.getRotationMatrix2D((56, 56), rng.uniform(-8, 8), rng.uniform(0.95, 1.05))
        crop = cv2.warpAffine(found[i % len(found)], turn, (112, 112)).astype(np.float32)
        crop = crop[:, :: 1 - 2 * (i % 2)] * rng.uniform(0.6, 1.3) + rng.normal(0, 4, crop.shape)
        made.append(np.clip(crop, 0, 255).astype(np.uint8))
    return np.stack(made)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the lowest cosine between corresponding rows."""
    return float((a * b).sum(1).min())


def throughput(
    cpu: Any, other: Any, tensor: NDArray[np.float32], device: str, args: argparse.Namespace
) -> list[dict[str, float]]:
    """Measure seconds per run by batch size: CPU, provider, and provider with bound tensors."""
    name = cpu.get_inputs()[0].name
    print(
        f"{'batch':>6}{'CPU':>11}{'provider':>11}{'ratio':>8}{'bound':>11}{'transfers':>11}", end=""
    )
    print(f"{'first run':>13}   (faces/s)")
    rows = []
    for size in args.batches:
        feed = {name: np.ascontiguousarray(np.resize(tensor, (size, *tensor.shape[1:])))}
        start = time.perf_counter()
        other.run(None, feed)
        first = time.perf_counter() - start
        runs: dict[str, Callable[[int], object]] = {
            "cpu": lambda _, f=feed: cpu.run(None, f),  # type: ignore[misc]
            "provider": lambda _, f=feed: other.run(None, f),  # type: ignore[misc]
        }
        on_device = bound(other, feed[name], device)
        runs["bound"] = lambda _, run=on_device: run()  # type: ignore[misc]
        took = interleaved(runs, args.rounds)
        row = {"batch": size, "first": first, **took}
        row["transfers"] = 1 - took["bound"] / took["provider"]
        rows.append(row)
        speed = {key: size / seconds for key, seconds in took.items()}
        print(
            f"{size:6}{speed['cpu']:11.0f}{speed['provider']:11.0f}"
            f"{speed['provider'] / speed['cpu']:7.1f}x{speed['bound']:11.0f}"
            f"{row['transfers']:10.0%}{first * 1e3:10.1f} ms"
        )
    return rows


def rule(rows: list[dict[str, float]]) -> int:
    """Return the smallest batch size within 5 % of the best throughput."""
    speeds = {int(row["batch"]): row["batch"] / row["provider"] for row in rows}
    return min(size for size, speed in speeds.items() if speed >= 0.95 * max(speeds.values()))


def detector(loaded: Any, providers: list[Provider], rounds: int) -> dict[str, dict[str, float]]:
    """Time the detector on the CPU and on facecore's choice, at new and known shapes."""
    spec = loaded.pack.detector
    here: Any = open_model(spec, loaded.detector)
    there: Any = open_model(spec, loaded.detector, providers=providers)
    if there.get_providers() == here.get_providers():
        print("\ndetector: stays on the CPU, because this provider compiles for each shape;")
        return shapes(loaded, providers)
    found = {}
    for height, width in INPUTS:
        feed = {spec.input.name: np.zeros((1, 3, height, width), np.float32)}
        start = time.perf_counter()
        there.run(None, feed)
        first = time.perf_counter() - start
        took = interleaved(
            {
                "cpu": lambda _, f=feed: here.run(None, f),  # type: ignore[misc]
                "provider": lambda _, f=feed: there.run(None, f),  # type: ignore[misc]
            },
            rounds,
        )
        found[f"{width}x{height}"] = {"first": first, **took}
        print(
            f"detector {width}x{height}: CPU {took['cpu'] * 1e3:.2f} ms, provider "
            f"{took['provider'] * 1e3:.2f} ms, its first run {first * 1e3:.1f} ms"
        )
    return found


def shapes(loaded: Any, providers: list[Provider]) -> dict[str, dict[str, float]]:
    """Time a network over 120 shapes on the CPU and, forced, on the provider."""
    rng = np.random.default_rng(0)
    sides = (32 * np.exp(rng.uniform(np.log(2), np.log(56), (120, 2))).astype(int)).tolist()
    name, found = loaded.pack.detector.input.name, {}
    for title, where in (("CPU", None), ("provider", providers)):
        session = create_session(loaded.detector, providers=where, threads=1, name="detector")
        for turn in ("first", "again"):
            before, start = resident(), time.process_time()
            for height, width in sides:
                session.run(None, {name: np.zeros((1, 3, height, width), np.float32)})
            ms = (time.process_time() - start) / len(sides) * 1e3
            memory = (resident() - before) / 1e6
            found[f"{title}, {turn}"] = {"ms": ms, "megabytes": memory}
            print(f"  120 shapes, {title}, {turn}: {ms:.1f} ms of processor time, +{memory:.0f} MB")
    return found


def whole(args: argparse.Namespace, providers: list[Provider], batch: int) -> dict[str, float]:
    """Measure the agreement and the pictures per second of `embed_many`."""
    engines = {"cpu": FaceEngine(args.pack), "provider": FaceEngine(args.pack, providers)}
    sizes = (200, 512, 960, 1600)
    named = pictures().values()
    shown = [cv2.resize(picture, (size * 3 // 4, size)) for picture in named for size in sizes]
    vectors = {k: np.stack([e.embed(p) for p in shown]) for k, e in engines.items()}
    files = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in shown] * args.repeat
    took = interleaved(
        {
            key: lambda _, e=engine: list(e.embed_many(files, batch))  # type: ignore[misc]
            for key, engine in engines.items()
        },
        rounds=3,
        warm=1,
    )
    least = cosine(vectors["cpu"], vectors["provider"])
    speed = {key: len(files) / seconds for key, seconds in took.items()}
    print(f"whole pictures: least cosine {least:.7f}", end="; ")
    print(f"embed_many CPU {speed['cpu']:.0f}, provider {speed['provider']:.0f} pictures/s")
    return {"cosine": least, **speed}


def measure(title: str, providers: list[Provider], args: argparse.Namespace) -> dict[str, Any]:
    """Measure one provider, or return the reason why it cannot be measured."""
    loaded = load_pack(args.pack)
    spec = loaded.pack.embedder
    print(f"\n{title}")
    try:
        other: Any = open_model(spec, loaded.embedder, providers=providers)
    except ProviderUnavailable as error:
        print(f"not available on this machine, nothing was measured: {error.message}")
        print(error.hint)
        return {"unavailable": error.message}
    cpu: Any = create_session(loaded.embedder, name=spec.file)
    faces = crops(FaceEngine(args.pack))
    least = cosine(Embedder(cpu, spec).embed(faces), Embedder(other, spec).embed(faces))
    print(f"runs on {', '.join(other.get_providers())}")
    print(f"64 crops: least cosine with the CPU {least:.7f}, asked {AGREE}")
    nvidia = title.startswith(("CUDA", "TensorRT"))
    rows = throughput(cpu, other, to_tensor(faces, spec.input), "cuda" if nvidia else "cpu", args)
    batch = rule(rows)
    total = batch * usable_cpus()
    print(
        f"rule: {batch} faces in a run are within 5 % of the best; embed_many shares a batch",
        end="",
    )
    print(f" among {usable_cpus()} workers, so batch_size={total}")
    return {
        "cosine": least,
        "agrees": least >= AGREE,
        "embedder": rows,
        "batch_size": total,
        "detector": detector(loaded, providers, args.rounds),
        "whole": whole(args, providers, total),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--provider", help="CUDA, TensorRT, OpenVINO, CoreML")
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=8, help="of the 12 pictures (%(default)s)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    asked = [args.provider.lower()] if args.provider else ["cuda", "tensorrt"]
    variants = {k: v for k, v in VARIANTS.items() if k.partition(",")[0].lower() in asked}
    variants = variants or {args.provider: [args.provider]}
    facts = machine(["onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"])
    print(describe(facts))
    found = {title: measure(title, providers, args) for title, providers in variants.items()}
    if all("unavailable" in result for result in found.values()):
        print("\nno GPU or other accelerator that ONNX Runtime could use: nothing was measured")
    write_json(args.json, facts, pack=args.pack, providers=found)


if __name__ == "__main__":
    main()
