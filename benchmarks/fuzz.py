"""Mutated pictures: does any crash, hang, use too much memory or raise an unexpected error?

    python -m benchmarks fuzz --count 1000000                # the decode step
    python -m benchmarks fuzz --detect --seconds 600         # all of engine.detect
    python -m benchmarks fuzz --show 1234                    # write one picture and its outcome

Mutates small valid pictures of every format, and pictures that once caused bugs
(tests/data/pictures), in one to six places.  Picture number i of a seed is always the same.  A
child process reads them and is replaced when it dies.  Counts crashes, pictures that take more
than 10 seconds, growth of the child's memory by more than 128 MiB (the limits allow 64 MiB per
picture), errors other than `UnreadableImage` and `ImageTooLarge`, and output on standard error.
Exits with status 1 if there is any.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks._measuring import describe, machine, write_json
from tests.images import fuzzing


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000, help="pictures (default: 1000000)")
    parser.add_argument("--seconds", type=float, default=600, help="stop then (default: 600)")
    parser.add_argument("--first", type=int, default=0, help="go on from this number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detect", action="store_true", help="through FaceEngine.detect")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="write this picture and stop")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.show is not None:
        data = fuzzing.mutant(args.seed, args.show)
        path = Path(f"mutant-{args.seed}-{args.show}.bin")
        path.write_bytes(data)
        print(f"{path}: {len(data)} bytes")
        try:
            print(fuzzing.load(data, fuzzing.LIMITS).shape)
        except fuzzing.FacecoreError as error:
            print(f"{error.code}: {error}")
        return 0
    report = fuzzing.run(
        args.count, seed=args.seed, first=args.first, seconds=args.seconds, detect=args.detect
    )
    facts = machine(("opencv-python-headless", "pillow", "numpy"))
    print(describe(facts))
    rate = sum(report.outcomes.values()) / max(report.processor, 1e-9)
    done = report.count - args.first
    print(f"{done:,} pictures of seed {args.seed} in {report.seconds:.0f} s; {rate:,.0f} a "
          f"second of processor time; the slowest took {report.slowest:.2f} s of it")  # fmt: skip
    read = max(sum(report.outcomes.values()), 1)
    for name, number in report.outcomes.most_common():
        print(f"| {name} | {number:,} | {100 * number / read:.1f} % |")
    for name in ("crashes", "hangs", "too_much_memory", "foreign"):
        found = getattr(report, name)
        print(f"| {name.replace('_', ' ')} | {len(found)} | {found[:5] or ''} |")
    print(f"| bytes on standard error | {len(report.printed)} | {report.printed[:200]!r} |")
    if args.json:
        write_json(args.json, facts, count=report.count, outcomes=dict(report.outcomes),
                   crashes=report.crashes, hangs=report.hangs, foreign=report.foreign,
                   too_much_memory=report.too_much_memory, slowest=report.slowest)  # fmt: skip
    return 0 if report.clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
