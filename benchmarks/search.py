"""Exact 1:N search: time against peers, agreement and memory.

    python -m benchmarks search                               # 1,000,000 templates
    python -m benchmarks search --sizes 10000 100000 1000000  # how it grows
    python -m benchmarks search --identity 10000 --json search.json

All methods search the same probes in turn, with as many threads as they can use (`faiss flat`
always scans for one probe on one thread; NumPy's BLAS uses OPENBLAS_NUM_THREADS threads, or all
processors).  Times are medians of one run.  `--identity` compares facecore's results with float64
brute force, on these vectors and on near duplicates.
Needs the extra `bench`.  The vectors are described in `benchmarks/_faces.py`.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _faces
from benchmarks._measuring import describe, interleaved, machine, resident, write_json
from facecore import warmup
from facecore._utils.cpus import usable_cpus
from facecore.matching.similarity import Candidates, encode, encode_probes, scan_numpy

OURS = "facecore exact"


def built(name: str, gallery: Any, threads: int) -> tuple[_faces.Search, dict[str, float]]:
    """Build a method; return it, its final and peak memory, and the build time."""
    before, highest, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.005):
            highest = max(highest, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    search = _faces.METHODS[name](gallery, threads)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    after = resident()
    memory = {"megabytes": (after - before) / 1e6, "peak": (max(highest, after) - before) / 1e6}
    return search, {**memory, "build_seconds": seconds}


def one_size(size: int, args: argparse.Namespace) -> dict[str, Any]:
    gallery, probes = _faces.faces(size, max(1000, args.identity), args.dimension)
    searches, facts = {}, {}
    for name in args.methods:
        searches[name], facts[name] = built(name, gallery, args.threads)
    runs = {
        name: lambda turn, search=search: search(probes[turn : turn + 1], args.k)
        for name, search in searches.items()
    }
    medians = interleaved(runs, args.rounds)
    print(f"\n{size:,} templates of {args.dimension}, top {args.k}, one probe")
    print(f"  {'':16} {'ms':>9} {'ratio':>7} {'GB/s':>6} {'MB':>8} {'peak':>7} {'build s':>8}")
    for name, seconds in medians.items():
        width = 1 if name == OURS else 4  # bytes of an element
        rate = size * args.dimension * width / seconds / 1e9
        fact = facts[name]
        fact.update(milliseconds=seconds * 1e3, ratio=seconds / medians[args.methods[0]])
        print(
            f"  {name:16} {seconds * 1e3:9.3f} {fact['ratio']:7.2f} {rate:6.1f} "
            f"{fact['megabytes']:8.1f} {fact['peak']:7.1f} {fact['build_seconds']:8.2f}"
        )
    answer: dict[str, Any] = {"size": size, "methods": facts, "spread": {}}
    answer["spread"] = like = _faces.spread(gallery, probes)
    print(
        f"  similarities: {like['all_mean']:.2f} ± {like['all_sd']:.2f}, "
        f"each probe's best {like['best_mean']:.2f} ± {like['best_sd']:.2f}"
    )
    if args.identity and OURS in searches:
        search = searches[OURS]
        answer["identity"] = [identity("these vectors", gallery, probes, search, args)]
        del searches, runs
        hard, wanted = _faces.near_duplicates(gallery[:100_000], max(1, args.identity // 10))
        search = _faces.METHODS[OURS](hard, args.threads)
        answer["identity"].append(identity("near duplicates", hard, wanted, search, args))
    return answer


def identity(
    title: str, gallery: Any, probes: Any, search: _faces.Search, args: argparse.Namespace
) -> dict[str, Any]:
    probes = probes[: args.identity]
    start = time.perf_counter()
    ours = search(probes, args.k)
    middle = time.perf_counter()
    truth = _faces.top_float64(gallery, probes, args.k)
    end = time.perf_counter()
    same = int((ours == truth).all(axis=1).sum())
    print(
        f"  top {args.k} identical to float64 brute force, {title}: {same:,} of {len(probes):,} "
        f"probes ({middle - start:.1f} s together; brute force {end - middle:.1f} s)"
    )
    return {
        "vectors": title,
        "probes": len(probes),
        "identical": same,
        "seconds": middle - start,
        "brute_force_seconds": end - middle,
    }


def numpy_rate(dimension: int) -> float:
    """Rows per second of the NumPy scan used until the kernels are compiled."""
    gallery, probes = _faces.faces(100_000, 20, dimension)
    codes, groups = encode(gallery), np.zeros(len(gallery), np.int32)
    every = np.zeros(0, bool)

    def run(turn: int) -> None:
        wanted = encode_probes(probes[turn : turn + 1])
        scan_numpy(codes, groups, every, wanted, 0, Candidates(1, 5))

    return len(gallery) / interleaved({"": run}, 10)[""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--methods", nargs="+", choices=_faces.METHODS, default=[*_faces.METHODS])
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--identity", type=int, default=0, metavar="PROBES")
    parser.add_argument("-k", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    facts = machine(("numba", "faiss-cpu", "usearch"))
    print(describe(facts))
    rate = numpy_rate(args.dimension)
    print(f"while nothing is compiled, NumPy scans {rate / 1e6:.1f} million rows a second")
    # Once per process, for any gallery size.
    before, start = resident(), time.perf_counter()
    warmup(args.dimension)
    seconds, megabytes = time.perf_counter() - start, (resident() - before) / 1e6
    print(f"Numba imported and kernels compiled: {seconds:.2f} s, {megabytes:.0f} MB")
    once = {"seconds": seconds, "megabytes": megabytes, "numpy_rows_per_second": rate}
    sizes = [one_size(size, args) for size in args.sizes]
    write_json(args.json, facts, threads=args.threads, warmup=once, sizes=sizes)


if __name__ == "__main__":
    main()
