"""Throughput of `embed_many` on all processors, against the floor on the same processors.

    python -m benchmarks throughput                 # 2,000 images, London and LFW in turn
    python -m benchmarks throughput --of london     # 960x720 only
    python -m benchmarks throughput --of lfw        # 250x250 only

The floor decodes the same bytes at the same scale and runs the bare models at the same sizes and
batches as `embed_many` (`benchmarks/_floor.py`).  Each of the three is timed separately, with one
thread per processor and with models that use all processors per run; the faster variant counts,
and the floor is the sum.  Floor and engine take turns, part by part.
"""

from __future__ import annotations

import sys

import numpy as np
from tqdm import tqdm

from benchmarks._floor import Clock, Floor, beside, traced
from benchmarks._measuring import arguments, describe, machine, write_json
from benchmarks._pictures import many
from facecore import FacecoreError, FaceEngine


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--of", nargs="+", choices=("london", "lfw"), default=["london", "lfw"])
    parser.add_argument("--part", type=int, default=500, help="images in one turn")
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    files = many(args.images, args.of)
    engine, floor, parts = FaceEngine(args.pack), Floor(args.pack), []
    list(engine.embed_many(files[:64], args.batch_size))
    for first in tqdm(range(0, len(files), args.part), disable=not sys.stderr.isatty()):
        some = files[first : first + args.part]
        with traced(engine.pack) as trace:
            answers = list(engine.embed_many(some, args.batch_size))
        failed = sum(isinstance(answer, FacecoreError) for answer in answers)
        bare = floor.stages(trace)
        start = Clock.now()
        for _ in engine.embed_many(some, args.batch_size):
            pass
        ours = start.passed()
        counts = [len(trace.decodes), len(trace.detector), sum(s[0] for s in trace.embedder)]
        parts.append(
            {"images": len(some), "failed": failed, "embed_many": ours, "calls": counts, **bare}
        )
    facts = machine(("onnxruntime", "opencv-python-headless"))
    print(describe(facts))
    count = sum(part["images"] for part in parts)
    calls = np.sum([part["calls"] for part in parts], axis=0) / count
    print(
        f"pack {args.pack}, {count:,} images of {', '.join(args.of)}, "
        f"{sum(part['failed'] for part in parts)} without a vector; for an image "
        f"{calls[0]:.2f} decodings, {calls[1]:.2f} runs of the detector, {calls[2]:.2f} faces"
    )
    ratios = beside(parts, "embed_many")
    write_json(args.json, facts, pack=args.pack, sets=args.of, parts=parts, **ratios)


if __name__ == "__main__":
    main()
