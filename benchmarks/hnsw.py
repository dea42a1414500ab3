"""HNSW: recall against exact search, speed against bare hnswlib, build and opening time.

For each size and search width, prints recall@1 and recall@5 against the exact index, and the
milliseconds per single probe, medians of interleaved rounds: wall clock, and in brackets the
processor time of all threads, which other load disturbs less. hnswlib uses the same graph and
parameters with one thread; the exact index uses all processors. "opened" is the time from the
files to the first result: SHA-256 of every byte, checks of every link, and one search.

`--crossing 0.999` grows one index through all sizes instead.  At each size it finds the smallest
search width with that recall@1, for probes of people in the gallery, and prints the times of this
search and of the exact scan, both on one thread.  The vectors have the statistics of compact's
(`benchmarks/_faces.py`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._faces import Array, faces, spread
from benchmarks._measuring import both_clocks, describe, interleaved, machine, resident, write_json
from facecore import warmup
from facecore.gallery.index import ExactIndex, HnswIndex, generations
from facecore.gallery.index.generations import Generation

LAST = 5  # neighbours


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks hnsw", description=__doc__)
    parser.add_argument("--count", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--probes", type=int, default=1000, help="for recall")
    parser.add_argument("--rounds", type=int, default=200, help="single probes that are timed")
    parser.add_argument("--dimension", type=int, default=160, help="160 is compact's")
    parser.add_argument("--m", type=int, default=32)
    parser.add_argument("--ef-construction", type=int, default=200)
    parser.add_argument("--ef-search", type=int, nargs="+", default=[400])
    parser.add_argument("--threads", type=int, help="of the build; all processors by default")
    parser.add_argument("--keep", type=Path, help="folder of built indexes, to be used again")
    parser.add_argument("--crossing", type=float, metavar="RECALL", help="see above")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    facts = machine(["hnswlib", "numba"])
    print(describe(facts))
    warmup(options.dimension)
    if options.crossing:
        write_json(options.json, facts, results=list(crossing(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        results = [row for count in options.count for row in measure(count, root, options)]
    write_json(options.json, facts, results=results)


def measure(count: int, root: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    gallery, probes = faces(count, options.probes, options.dimension)
    print(
        f"\n{count:,} templates of {options.dimension}, m {options.m}, "
        f"ef_construction {options.ef_construction}; "
        + ", ".join(f"{name} {value:.3f}" for name, value in spread(gallery, probes).items())
    )
    exact = ExactIndex(options.dimension)
    exact.add(np.arange(count), gallery)
    truth = exact.search(probes, LAST)[0]
    name = f"{count}-{options.dimension}-{options.m}-{options.ef_construction}"
    saved = built(gallery, root / name, options)
    rows = []
    for ef_search in options.ef_search:
        before = resident()
        start = time.perf_counter()
        found = generations.latest(saved.folder.parent, saved.contract, options.dimension)
        assert isinstance(found, Generation)
        index = HnswIndex.load(found.folder, ef_search=ef_search)
        index.search(probes[0], LAST)
        opened = time.perf_counter() - start
        row = {
            "count": count,
            **saved.parameters,
            "ef_search": ef_search,
            "opened_s": opened,
            "memory_bytes": resident() - before,
            "file_bytes": sum(path.stat().st_size for path in found.folder.iterdir()),
            **compared(index, exact, probes, truth, options.rounds),
        }
        rows.append(row)
        print(
            f"  ef {ef_search:4}: recall@1 {row['recall@1']:.4f} @5 {row['recall@5']:.4f}; "
            f"facecore {row['facecore_ms']:.3f} ms [{row['facecore_busy']:.3f}], "
            f"hnswlib {row['hnswlib_ms']:.3f} ({row['speed']:.2f} x its speed; "
            f"{row['batch_speed']:.2f} x in batches), "
            f"exact {row['exact_ms']:.3f} [{row['exact_busy']:.3f}]; opened {opened:.2f} s, "
            f"{row['memory_bytes'] / 1e6:.0f} MB, files {row['file_bytes'] / 1e6:.0f} MB"
        )
        del index
    return rows


def crossing(options: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Yield and print, for each size, the cost of a search with the requested recall@1."""
    sizes = sorted(options.count)
    # All templates of a person are in one part, so every probe has a match.
    drawn = [
        faces(part, options.probes, options.dimension, seed, like_compact=True)
        for seed, part in enumerate(np.diff([0, *sizes]).tolist())
    ]
    gallery = np.concatenate([rows for rows, _ in drawn])
    index = HnswIndex(
        options.dimension, m=options.m, ef_construction=options.ef_construction, threads=1
    )
    exact = ExactIndex(options.dimension, keep_vectors=False, threads=1)
    print(f"m {options.m}, ef_construction {options.ef_construction}, one thread")
    probes = drawn[0][1]
    print(", ".join(f"{name} {value:.3f}" for name, value in spread(*drawn[0]).items()))

    def scan(some: Array) -> Array:
        return exact.search(some, 1, fetch=gallery.__getitem__)[0][..., 0]

    def walk(some: Array) -> Array:
        return index.search(some, 1)[0][..., 0]

    runs = {
        "hnsw": lambda turn: walk(probes[turn % half]),
        "exact": lambda turn: scan(probes[half + turn % half]),
    }
    width, building, memory = 50, 0.0, 0.0
    for i, (before, count) in enumerate(zip([0, *sizes], sizes, strict=False)):
        shares = [round(options.probes * len(rows) / count) for rows, _ in drawn[: i + 1]]
        probes = np.concatenate([some[:n] for (_, some), n in zip(drawn, shares, strict=False)])
        half = len(probes) // 2  # never the same probe twice in a row: its rows would be cached
        start, held = time.process_time(), resident()
        index.add(np.arange(before, count), gallery[before:count])
        building, memory = building + time.process_time() - start, memory + resident() - held
        exact.add(np.arange(before, count), gallery[before:count])
        truth = scan(probes)
        while (recall := _recall(index, width, probes, truth)) < options.crossing:
            width = round(1.25 * width)
        times = {name: 1e3 * busy for name, (_, busy) in both_clocks(runs, options.rounds).items()}
        print(
            f"{count:9,}: ef_search {width:5}, recall@1 {recall:.4f}; HNSW {times['hnsw']:.2f} ms, "
            f"exact {times['exact']:.2f} ms of processor time; "
            f"built in {building:.0f} s, {memory / 1e6:.0f} MB",
            flush=True,
        )
        yield {
            "count": count,
            "ef_search": width,
            "recall@1": recall,
            **{f"{name}_ms": value for name, value in times.items()},
            "build_s": building,
            "hnsw_bytes": memory,
        }


def _recall(index: HnswIndex, width: int, probes: Array, truth: Array) -> float:
    index._ef_search = width
    index._widen()
    return float((index.search(probes, 1)[0][:, 0] == truth).mean())


def built(gallery: Array, root: Path, options: argparse.Namespace) -> Generation:
    contract = f"benchmark of {len(gallery)}"
    found = generations.latest(root, contract, options.dimension)
    if isinstance(found, Generation):
        return found
    index = HnswIndex(
        options.dimension,
        m=options.m,
        ef_construction=options.ef_construction,
        threads=options.threads,
    )
    start = time.perf_counter()
    index.add(np.arange(len(gallery)), gallery)
    build = time.perf_counter() - start
    start = time.perf_counter()
    saved = generations.save(
        root, index, kind="hnsw", contract=contract, watermark={}, parameters=index.parameters
    )
    print(f"  built in {build:.0f} s, saved in {time.perf_counter() - start:.1f} s")
    return saved


def compared(
    index: HnswIndex, exact: ExactIndex, probes: Array, truth: Array, rounds: int
) -> dict[str, float]:
    bare = index._hnswlib
    found = index.search(probes, LAST)[0]
    # Never the same probe twice in a row: the second run would find its rows in the cache.
    half = len(probes) // 2
    times = both_clocks(
        {
            "facecore": lambda turn: index.search(probes[turn % half], LAST),
            "hnswlib": lambda turn: bare.knn_query(probes[half + turn % half], LAST, num_threads=1),
        },
        rounds,
    )
    times |= both_clocks(
        {"exact": lambda turn: exact.search(probes[turn % half], LAST)}, max(20, rounds // 4)
    )
    batch = probes[:200]
    batches = interleaved(
        {
            "facecore": lambda turn: index.search(batch, LAST),
            "hnswlib": lambda turn: bare.knn_query(batch, LAST),
        },
        rounds=7,
        warm=1,
    )
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]
    return {
        "recall@1": float((found[:, 0] == truth[:, 0]).mean()),
        "recall@5": float(np.mean(hits)) / LAST,
        **{f"{name}_ms": 1000 * wall for name, (wall, _) in times.items()},
        **{f"{name}_busy": 1000 * busy for name, (_, busy) in times.items()},
        "speed": times["hnswlib"][0] / times["facecore"][0],
        "batch_speed": batches["hnswlib"] / batches["facecore"],
    }


if __name__ == "__main__":
    main()
