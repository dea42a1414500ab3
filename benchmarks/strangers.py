"""Strangers whose pictures are poor in the same way: how many reach a score of 80, and of 90?

The table spoils the pictures of 150 LFW people and of London's 102 in each way of
`facecore.evaluation.spoiling.ROWS`, and compares every pair of people.  The search draws random
spoilings (roll, covers, light, blur, size, noise, colour, compression, one to three at once)
and applies each to a few people; it prints the highest score of two strangers, and the spoiling of
their pictures.

    python -m benchmarks strangers                               # the table, both packs
    python -m benchmarks strangers --search 100000 --pack compact --seed 1
    python -m benchmarks strangers --genuine 400                 # pairs of one person, one turned
    python -m benchmarks strangers --allowance                   # its cost for LFW's genuine pairs
    python -m benchmarks strangers --time                        # cost of the roll and of the gate
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._measuring import DATA
from benchmarks._pictures import lfw, london
from facecore import FaceEngine, FaceSample, images
from facecore.engine import FaceChoice
from facecore.errors import FacecoreError
from facecore.evaluation.readers import read_lfw_pairs
from facecore.evaluation.spoiling import ROWS, Spoiling, draw
from facecore.face.detection import Face
from facecore.face.orientation import right
from facecore.face.recognizability import allowance

Pixels = NDArray[np.uint8]
TOGETHER = 16  # people that share a random spoiling: 120 pairs


@dataclass(frozen=True, slots=True)
class Person:
    pixels: Pixels
    face: Face
    choice: FaceChoice


def people(engine: FaceEngine, which: str, most: int) -> list[Person]:
    """Return one unchanged picture of each person."""
    if which == "LFW":
        pairs = read_lfw_pairs(DATA / "lfw" / "pairs.txt")
        pictures = sorted({picture for pair in pairs for picture in pair[2:]})
        first = {picture.partition("/")[0]: picture for picture in reversed(pictures)}
        names = sorted(first)[:: max(1, len(first) // most)][:most]
        paths = [DATA / "lfw" / "images" / first[name] for name in names]
    else:
        paths = sorted((DATA / "faces" / "london").glob("*_neutral.jpg"))[:most]
    found = []
    for path in paths:
        pixels = images.load(path)
        choice: FaceChoice = "central" if which == "LFW" else "largest"
        found.append(Person(pixels, engine.sample(pixels, face=choice).face, choice))
    return found


def spoiled(
    engine: FaceEngine, some: Sequence[Person], spoiling: Spoiling, seed: int = 0
) -> list[FaceSample | None]:
    """Return embedded samples of the spoiled pictures; None if no face was found."""
    answers: list[FaceSample | None] = []
    for i, one in enumerate(some):
        try:
            picture = spoiling.apply(one.pixels, one.face, seed + i)
            sample = engine.sample(picture, face=one.choice)
            engine.embed(sample)
            answers.append(sample)
        except FacecoreError:
            answers.append(None)
    return answers


def taken(engine: FaceEngine, samples: Sequence[FaceSample]) -> NDArray[np.float64]:
    """Return the allowance that a comparison subtracts for each pair of samples (N, N)."""
    spec = engine.pack.embedder.recognizability
    clear = np.array([s.recognizability or 0.0 for s in samples])
    largest = 0.0 if spec is None else spec.allowance
    return allowance(np.maximum(clear, clear[:, None]), largest)


@dataclass(frozen=True, slots=True)
class Row:
    """Shares of one row of the table; `passing` is of the pairs without a refused picture."""

    missed: float
    refused: float
    before: float
    passing: float
    high: float


def row(engine: FaceEngine, some: Sequence[Person], spoiling: Spoiling, limit: float) -> Row:
    samples = [s for s in spoiled(engine, some, spoiling) if s is not None]
    if not samples:  # no face was found in any picture
        return Row(1.0, 0.0, 0.0, 0.0, 0.0)
    contract = engine.contract_id
    vectors = np.stack([sample.vectors[contract] for sample in samples])
    kept = np.array([(sample.recognizability or 0.0) >= limit for sample in samples])
    apart = np.triu(np.ones((len(samples),) * 2, bool), 1)
    similarity, least = vectors @ vectors.T, engine.calibration.similarity(80)
    left = apart & kept & kept[:, None]
    with_gate = similarity - taken(engine, samples) >= least
    high = np.mean([engine.quality(s).level == "HIGH" for s, k in zip(samples, kept, strict=True)])
    return Row(
        1 - len(samples) / len(some),
        1 - float(kept.mean()),
        float((similarity[apart] >= least).mean()) if apart.any() else 0.0,
        float(with_gate[left].mean()) if left.any() else 0.0,
        float(high),
    )


def table(packs: Sequence[str], sets: Sequence[tuple[str, int]]) -> Iterator[str]:
    for pack in packs:
        engine = FaceEngine(pack, threads=1, min_recognizability=0)
        limit = FaceEngine(pack, threads=1).min_recognizability or 0.0
        for which, most in sets:
            some = people(engine, which, most)
            yield f"{pack}, {which}, {len(some)} people: at 80 without the gate, with it; refused,"
            yield "no face found, quality HIGH"
            for name, spoiling in ROWS.items():
                r = row(engine, some, spoiling, limit)
                yield (
                    f"  {name:<24}{r.before:>9.2%}{r.passing:>9.2%}{r.refused:>9.1%}"
                    f"{r.missed:>9.1%}{r.high:>9.1%}"
                )


def search(pack: str, pairs: int, seed: int, sets: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Draw random spoilings; apply each to a few people, and compare all their pairs."""
    engine = FaceEngine(pack, threads=1)
    some = [one for which, most in sets for one in people(engine, which, most)]
    rng = np.random.default_rng(seed)
    scores, refused, tried = [], 0, 0
    best = (-1.0, Spoiling())
    while tried < pairs:
        spoiling = draw(rng, kinds=3)
        chosen = [some[i] for i in rng.choice(len(some), TOGETHER, replace=False)]
        samples = [s for s in spoiled(engine, chosen, spoiling, int(rng.integers(2**31))) if s]
        tried += TOGETHER * (TOGETHER - 1) // 2
        refused += TOGETHER - len(samples)
        if len(samples) > 1:
            vectors = np.stack([sample.vectors[engine.contract_id] for sample in samples])
            similarity = vectors @ vectors.T - taken(engine, samples)
            upper = similarity[np.triu_indices(len(samples), 1)]
            scores.append(np.asarray(engine.calibration.score(upper)))
            best = max(best, (float(scores[-1].max()), spoiling), key=lambda one: one[0])
    found = np.concatenate(scores)
    yield (
        f"{pack}: {tried:,} pairs, {refused / (tried / (TOGETHER - 1) * 2):.1%} of the pictures "
        f"refused or without a face; {len(found):,} pairs compared: {np.mean(found >= 80):.3%} at "
        f"80, {np.mean(found >= 90):.4%} at 90"
    )
    yield f"highest score of two strangers: {best[0]:.1f}, by {best[1]}"


def genuine(packs: Sequence[str], most: int) -> Iterator[str]:
    """Measure LFW's genuine pairs with the second picture turned."""
    pairs = [pair for pair in read_lfw_pairs(DATA / "lfw" / "pairs.txt") if pair[1]]
    pairs = pairs[:: max(1, len(pairs) // most)][:most]
    for pack in packs:
        engine = FaceEngine(pack, threads=1)
        least, shown = engine.calibration.similarity(80), []
        for quarters in range(4):
            passed = 0
            for pair in pairs:
                a, b = (images.load(DATA / "lfw" / "images" / name) for name in pair[2:])
                try:
                    result = engine.compare(
                        a, np.ascontiguousarray(np.rot90(b, -quarters)), face="central"
                    )
                    passed += result.similarity - result.allowance >= least
                except FacecoreError:
                    pass
            shown.append(f"{90 * quarters}° {passed / len(pairs):.1%}")
        yield f"{pack}, {len(pairs)} genuine pairs of LFW at 80, one turned by: {', '.join(shown)}"


def cost(packs: Sequence[str]) -> Iterator[str]:
    """Measure the FNMR of LFW's test pictures at 70, 80, 90, without and with the allowance."""
    listed = read_lfw_pairs(DATA / "lfw" / "pairs.txt")
    names = sorted({name for pair in listed for name in pair[2:]})
    for pack in packs:
        engine = FaceEngine(pack, threads=1)
        samples: dict[str, list[FaceSample]] = {}
        for name in names:
            with suppress(FacecoreError):
                sample = engine.sample(DATA / "lfw" / "images" / name, face="central")
                engine.embed(sample)
                samples.setdefault(name.partition("/")[0], []).append(sample)
        similarities, allowances = [], []
        for some in samples.values():
            vectors = np.stack([sample.vectors[engine.contract_id] for sample in some])
            above = np.triu_indices(len(some), 1)
            similarities.append((vectors @ vectors.T)[above])
            allowances.append(taken(engine, some)[above])
        plain, less = np.concatenate(similarities), np.concatenate(allowances)
        yield f"{pack}: {len(plain):,} pairs, {np.mean(less > 0):.1%} with an allowance; rejected"
        for score in (70, 80, 90):
            least = engine.calibration.similarity(score)
            yield f"  at {score}: {np.mean(plain < least):.2%}, {np.mean(plain - less < least):.2%}"


def times(pack: str, which: str) -> str:
    """Measure processor time of the roll and the gate, and of a whole picture of a set."""
    engine = FaceEngine(pack, threads=1)
    pipeline = engine._pipeline
    paths = lfw()[::88] if which == "LFW" else london()
    files = [path.read_bytes() for path in paths]
    pictures = [pipeline.open(file) for file in files]
    faces = [pipeline.detector.prominent_each([picture])[0][0] for picture in pictures]
    samples = [engine.sample(file) for file in files]
    vectors = [engine.embed(sample)[None] for sample in samples]

    def least(action: Callable[[], object]) -> float:
        action()
        spent = []
        for _ in range(3):
            start = time.process_time()
            action()
            spent.append((time.process_time() - start) * 1000 / len(files))
        return min(spent)

    whole = least(lambda: [engine.embed(file) for file in files])
    pairs = list(zip(pictures, faces, strict=True))
    roll = least(lambda: [right(pipeline.detector, [p], [face]) for p, face in pairs])
    gated = list(zip(vectors, samples, strict=True))
    gate = least(lambda: [pipeline.gate.scores(vector, [s.crop]) for vector, s in gated])
    return (
        f"{pack}, {which}: a picture takes {whole:.2f} ms, of which the roll {roll:.3f} ms "
        f"({roll / whole:.1%}) and the gate {gate:.3f} ms ({gate / whole:.1%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", action="append")
    parser.add_argument("--lfw", type=int, default=150, help="people")
    parser.add_argument("--london", type=int, default=102, help="people")
    parser.add_argument("--search", type=int, metavar="PAIRS", help="search at random")
    parser.add_argument("--genuine", type=int, metavar="PAIRS", help="pairs of one person, turned")
    parser.add_argument("--allowance", action="store_true", help="its cost for genuine pairs")
    parser.add_argument("--time", action="store_true", help="of the roll and of the gate")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    packs = args.pack or ["compact", "mobilefacenet"]
    sets = [(name, most) for name, most in (("LFW", args.lfw), ("London", args.london)) if most]
    if args.time:
        for pack in packs:
            for which, _ in sets:
                print(times(pack, which), flush=True)
    elif args.allowance:
        for line in cost(packs):
            print(line, flush=True)
    elif args.search:
        for pack in packs:
            for line in search(pack, args.search, args.seed, sets):
                print(line, flush=True)
    elif args.genuine:
        for line in genuine(packs, args.genuine):
            print(line, flush=True)
    else:
        for line in table(packs, sets):
            print(line, flush=True)


if __name__ == "__main__":
    main()
