"""Moving a gallery from a folder to Milvus and back: export, load and search, in one run.

    python -m benchmarks moving --faces 20000

Uses milvus-lite, a single Python process that searches far slower than a Milvus server; the
figures show the cost of moving faces and do not predict a server's speed.
Needs the extra `milvus`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from templates import DIMENSION, TemplateEngine

from benchmarks._measuring import describe, interleaved, machine, write_json
from facecore import Gallery
from facecore.gallery.archive import export_groups, load_groups

BATCH = 1000


def unit(count: int, seed: int) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def fill(gallery: Gallery, count: int) -> None:
    gallery.create_group("all")
    vectors = unit(count, 0)
    for start in range(0, count, BATCH):
        some = vectors[start : start + BATCH]
        users = [f"user {start + i}" for i in range(len(some))]
        gallery.add_templates("all", some, users, contract=gallery.contract_id)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    engine: Any = TemplateEngine()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        first, last = root / "first.jsonl", root / "last.jsonl"
        remote = "milvus+" + (root / "faces.db").as_uri()
        with (
            Gallery(root / "a.gallery", engine, index="exact") as local,
            Gallery(remote, engine, index="exact") as milvus,
            Gallery(root / "b.gallery", engine, index="exact") as back,
        ):
            steps = {
                "add to the folder": lambda: fill(local, args.faces),
                "export": lambda: export_groups(local, first),
                "load into milvus-lite": lambda: load_groups(milvus, first),
                "export from milvus-lite": lambda: export_groups(milvus, last),
                "load into a folder": lambda: load_groups(back, last),
            }
            times = {step: seconds(run) for step, run in steps.items()}
            same = first.read_bytes() == last.read_bytes()
            probes = unit(args.rounds + 3, 1)
            places = {"folder": back, "milvus-lite": milvus}
            answers = {
                title: [[m.face_id for m in g.search(probe)] for probe in probes[:5]]
                for title, g in places.items()
            }
            searches = interleaved(
                {t: lambda turn, g=g: g.search(probes[turn]) for t, g in places.items()},
                args.rounds,
            )
        size = first.stat().st_size / args.faces
    facts = machine(("pymilvus", "milvus-lite"))
    print(describe(facts))
    for step, spent in times.items():
        print(f"  {step:24} {args.faces / spent:9,.0f} faces a second")
    print(f"  {size:,.0f} bytes a face in the file; {'the same' if same else 'OTHER'} bytes back")
    agree = answers["folder"] == answers["milvus-lite"]
    print(f"  a search of {args.faces:,} faces, {'the same' if agree else 'OTHER'} answers:")
    for title, spent in searches.items():
        print(f"    {title:12} {spent * 1e3:8.2f} ms")
    results = {"faces": args.faces, "seconds": times, "bytes": size, "search": searches}
    write_json(args.json, facts, **results, same=same, agree=agree)


if __name__ == "__main__":
    main()
