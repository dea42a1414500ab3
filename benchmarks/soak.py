"""Soak test: does memory stay flat over tens of thousands of pictures of all sizes?

    python -m benchmarks soak                              # 20,000 images
    python -m benchmarks soak --images 2000 --plot soak.png --json soak.json

Runs pictures of random size and shape, 64 to 4000 pixels on the longer side, through `detect`,
`compare` and `embed_many` in random order: JPEG, PNG and WebP files, and arrays that never repeat
a size.  Some pictures show no face; some files are broken.  Reads anonymous memory (Linux: RssAnon)
a hundred times: as is, including free pages in the allocator's heaps, and again after releasing
those pages, which leaves the memory that the process holds.  After a warm-up of a quarter of the
images, fits a line to the second reading: memory grows if the line rises by more than two standard
errors and by more than a twentieth.
"""

from __future__ import annotations

import collections
import gc
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks._measuring import arguments, describe, machine, resident, write_json
from benchmarks._pictures import london, texture
from facecore import FacecoreError, FaceEngine
from facecore._utils import malloc
from facecore.demo import pictures

SIDES = (64, 4000)
FLAT = 0.05  # tolerated growth of memory over the measurement, as a share
KINDS = (".jpg", ".jpg", ".png", ".webp")


class Pictures:
    """Files of random sizes, created once, and arrays derived from them for each use."""

    def __init__(self, folder: Path, count: int, seed: int) -> None:
        self._random = random.Random(seed)
        faces = [cv2.imread(str(path)) for path in london()[:40]] or [*pictures().values()]
        rng = np.random.default_rng(seed)
        # Sources of the arrays, small enough to keep in memory.
        self._sources = [*faces[:6], texture(rng, 400, 300)]
        self.files: list[Path] = []
        for i in range(count):
            alone = self._random.random() < 0.15
            source = texture(rng, 400, 300) if alone else self._random.choice(faces)
            path = folder / f"{i}{self._random.choice(KINDS)}"
            cv2.imwrite(str(path), self._resized(source))
            if self._random.random() < 0.05:
                self._break(path)
            self.files.append(path)

    def _resized(self, source: Any) -> Any:
        low, high = np.log(SIDES)
        longest = np.exp(self._random.uniform(low, high))
        shape = np.array(source.shape[1::-1]) * [self._random.uniform(0.7, 1.4), 1]
        width, height = np.maximum(1, np.rint(shape * longest / shape.max())).astype(int).tolist()
        return cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA)

    def _break(self, path: Path) -> None:
        data = path.read_bytes()
        cut = data[: self._random.randrange(len(data))]
        path.write_bytes(self._random.choice([cut, b"", data[::-1]]))

    def one(self) -> Any:
        """Return a path, its bytes, or an array."""
        kind = self._random.random()
        if kind < 0.3:
            return self._resized(self._random.choice(self._sources))
        path = self._random.choice(self.files)
        return path if kind < 0.8 else path.read_bytes()

    def step(self, engine: FaceEngine) -> tuple[int, str]:
        """Run one random operation; return its number of pictures and its outcome."""
        what = self._random.choice(("detect", "compare", "embed_many"))
        count = {"detect": 1, "compare": 2}.get(what) or self._random.randrange(1, 33)
        some = (self.one() for _ in range(count))
        try:
            if what == "detect":
                outcome = "a face" if engine.detect(next(some)) else "none"
            elif what == "compare":
                outcome = "passed" if engine.compare(next(some), next(some)).passed else "failed"
            else:
                errors = [isinstance(answer, FacecoreError) for answer in engine.embed_many(some)]
                outcome = "with errors" if any(errors) else "without errors"
        except FacecoreError as error:
            outcome = error.code
        return count, f"{what}: {outcome}"


def plot(
    path: Path, counts: list[int], found: list[float], held: list[float], warm: int, line: Any
) -> None:
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(7, 4))).add_subplot()
    axes.plot(counts, found, "C7", label="anonymous memory")
    axes.plot(counts, held, "C0", label="the same, free pages given back")
    axes.plot(counts[warm:], line(counts[warm:]), "C1--", label="line after the warm-up")
    axes.set(xlabel="images", ylabel="MB", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=500, help="that are made beforehand")
    parser.add_argument("--every", type=int, help="images between readings (default: a 100th)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="write the curve there; needs matplotlib")
    args = parser.parse_args()
    every = args.every or max(1, args.images // 100)
    facts = machine(("onnxruntime", "opencv-python-headless"))
    print(describe(facts))
    outcomes: collections.Counter[str] = collections.Counter()
    counts, found, held, done = [], [], [], 0
    trim = malloc.malloc_trim() or (lambda pad: pad)
    with tempfile.TemporaryDirectory() as folder:
        source = Pictures(Path(folder), args.files, args.seed)
        engine = FaceEngine(args.pack)
        print(f"{'images':>8} {'anonymous':>11} {'held':>11}")
        with tqdm(total=args.images, disable=not sys.stderr.isatty()) as bar:
            while done < args.images:
                count, outcome = source.step(engine)
                outcomes[outcome] += 1
                done += count
                bar.update(count)
                if done >= every * (len(counts) + 1):
                    counts.append(done)
                    found.append(resident() / 1e6)
                    gc.collect()
                    trim(0)
                    held.append(resident() / 1e6)
                    print(f"{done:8,} {found[-1]:8.1f} MB {held[-1]:8.1f} MB", flush=True)
    for outcome, number in sorted(outcomes.items()):
        print(f"  {number:6,} x {outcome}")
    warm = len(counts) // 4
    (slope, level), covariance = np.polyfit(counts[warm:], held[warm:], 1, cov=True)
    rise, error = np.array([slope, covariance[0, 0] ** 0.5]) * (counts[-1] - counts[warm])
    share = rise / float(np.mean(held[warm:]))
    flat = bool(share <= FLAT or rise <= 2 * error)
    print(
        f"after the warm-up {slope * 1000:+.2f} MB per 1,000 images, {rise:+.1f} ± {error:.1f} MB "
        f"({share:+.1%}) in all: {'flat' if flat else 'GROWING'}; the highest {max(found):.1f} MB"
    )
    if args.plot:
        plot(args.plot, counts, found, held, warm, np.poly1d([slope, level]))
    write_json(
        args.json,
        facts,
        pack=args.pack,
        images=counts,
        megabytes=found,
        held=held,
        slope_per_1000=slope * 1000,
        rise=rise,
        flat=flat,
        outcomes=dict(outcomes),
    )


if __name__ == "__main__":
    main()
