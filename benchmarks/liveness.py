"""Liveness errors: attacks that pass, by species, and genuine faces classified as attacks.

Four kinds of pictures; the peers are MiniFASNet and Silent-Face-Anti-Spoofing's pair:

    python -m benchmarks liveness --sources DIR [--left-out presentations.npz]
        real attacks, source by source.  The shipped model was fitted to these sources, so its
        column is too optimistic.  With the output of weights/training/presentations.py, another
        column has the answers of models fitted without the source.
    python -m benchmarks liveness --genuine [--every 8]
        genuine pictures classified as attacks: LFW's of the test pairs, and the London set.
    python -m benchmarks liveness --lfw 150 --london 25
        simulated attacks (weights/training/recapture.py) with held-out parameters, of LFW
        pictures of the test pairs at 0.7 to 3 times their size, and of the London set.
    facecore evaluate liveness DIR
        your own pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from facecore import FacecoreError, FaceEngine, FaceSample, NoFaceDetected, images
from facecore.evaluation.attacks import AttackErrors, attack_errors, auc, bpcer_at_apcer
from facecore.evaluation.intervals import rate

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "weights" / "training"))

from data import tested_pictures  # noqa: E402
from media import SPECIES  # noqa: E402
from presentations import real  # noqa: E402
from recapture import GENUINE, photograph, recapture  # noqa: E402

Pixels = NDArray[np.uint8]
Presentations = Iterator[tuple[str, str, Pixels]]  # set, "as it is" or "camera" or species, pixels
GENUINE_LFW = 1000  # as they are
AS_IT_IS, CAMERA = "as it is", "camera"


class Peers:
    """Silent-Face-Anti-Spoofing's pair and face-antispoof-onnx's MiniFASNet (Apache-2.0)."""

    def __init__(self, root: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.sessions = [
            ort.InferenceSession(root / "weights" / name, options, ["CPUExecutionProvider"])
            for name in (
                "minivision/minivision_v2_2.7.onnx",
                "minivision/minivision_v1se_4.0.onnx",
                "minifasnet/minifas_128.onnx",
            )
        ]

    def _crops(self, pixels: Pixels, box: NDArray[np.float64]) -> Iterator[NDArray[np.float32]]:
        """Yield the three inputs, cut as in the networks' published code."""
        limits = np.array(pixels.shape[1::-1]) - 1.0
        size = box[2:] - box[:2]
        for reach in (2.7, 4.0):
            half = size * min(reach, *limits / size) / 2
            middle = np.clip((box[:2] + box[2:]) / 2, half, np.maximum(limits - half, half))
            x1, y1 = np.maximum(middle - half, 0).astype(int)
            x2, y2 = (middle + half).astype(int) + 1
            part = cv2.resize(pixels[y1:y2, x1:x2], (80, 80))
            yield part.transpose(2, 0, 1)[None].astype(np.float32)
        side = 1.35 * float(size.max())
        x, y = (box[:2] + box[2:] - side) / 2
        matrix = np.array([[side / 128, 0, x], [0, side / 128, y]])
        flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
        part = cv2.warpAffine(
            pixels, matrix, (128, 128), flags=flags, borderMode=cv2.BORDER_REFLECT_101
        )
        yield (part[None, ..., ::-1].transpose(0, 3, 1, 2) / 255).astype(np.float32)

    def odds(self, pixels: Pixels, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log odds of an attack: of the pair's two networks, and of MiniFASNet."""
        result = []
        for session, crop in zip(self.sessions, self._crops(pixels, box), strict=True):
            logits = session.run(None, {session.get_inputs()[0].name: crop})[0][0]
            # The pair's outputs are logits of fake, live, fake; MiniFASNet's of live, fake.
            live = 1 if len(logits) == 3 else 0
            result.append(np.logaddexp.reduce(np.delete(logits, live)) - logits[live])
        return np.array(result)


def peers(root: Path) -> dict[str, Callable[[FaceSample], float]]:
    """Attack scores, 0..100, of the public models."""
    both = Peers(root)

    def odds(sample: FaceSample) -> NDArray[np.float64]:
        return both.odds(sample.pixels, sample.face.box.astype(np.float64))

    return {
        "pair": lambda sample: pair_score(odds(sample)),
        "MiniFASNet": lambda sample: float(50 * (1 + np.tanh(odds(sample)[2] / 2))),
    }


def pair_score(odds: NDArray[np.float64]) -> float:
    """Average both networks' probabilities of an attack, as their authors do; 0..100."""
    return float(25 * (2 + np.tanh(odds[:2] / 2).sum()))


def of_picture(
    name: str, picture: Pixels, number: int, scale: float, steady: bool
) -> Presentations:
    yield name, AS_IT_IS, picture
    yield name, CAMERA, photograph(picture, number, held_out=True, scale=scale, steady=steady)
    for k, species in enumerate(SPECIES):
        seed, framed = 1000 * (k + 1) + number, number % 4 == 0
        yield (
            name,
            species,
            recapture(picture, species, seed, held_out=True, scale=scale, framed=framed),
        )


def reference(root: Path, lfw: int, london: int, steady: bool) -> Presentations:
    rng = np.random.default_rng(11)
    names = sorted(tested_pictures(root))
    for number, name in enumerate(rng.permutation(names)[: max(lfw, GENUINE_LFW)]):
        picture = images.load(root / "lfw/images" / name)
        if number < lfw:
            scale = float(np.exp(rng.uniform(np.log(0.7), np.log(3.0))))
            yield from of_picture("lfw", picture, number, scale, steady)
        else:
            yield "lfw", AS_IT_IS, picture
    paths = sorted((root / "faces/london").glob("*.jpg"))
    for number, path in enumerate(paths):
        if number % max(1, len(paths) // max(london, 1)) == 0 and london:
            yield from of_picture("london", images.load(path), number, 1.0, steady)
        else:
            yield "london", AS_IT_IS, images.load(path)


def table(rows: list[tuple[str, str, float]], threshold: float) -> list[str]:
    """Tabulate APCER by attack type and BPCER by type of genuine picture, for each set."""
    lines = []
    for name in sorted({row[0] for row in rows}):
        scores: dict[str, list[float]] = defaultdict(list)
        for _, kind, score in (row for row in rows if row[0] == name):
            scores[kind].append(score)
        genuine = {k: v for k, v in scores.items() if k in (AS_IT_IS, CAMERA)}
        attacks = {k: v for k, v in scores.items() if k not in genuine}
        if not genuine or not attacks:
            continue
        flat = [s for v in attacks.values() for s in v]
        kinds = [k for k, v in attacks.items() for _ in v]
        for kind, live in genuine.items():
            errors = attack_errors(flat, kinds, live, threshold)
            lines.append(f"{name:7} BPCER, {kind:9} {show(errors.bpcer)}")
        for kind, passed in errors.apcer.items():
            lines.append(f"{name:7} APCER, {kind:9} {show(passed)}")
        every = [s for v in genuine.values() for s in v]
        best: AttackErrors = bpcer_at_apcer(flat, kinds, every, 0.05)
        lines.append(
            f"{name:7} BPCER at APCER 5 % of the worst species ({best.worst_species}): "
            f"{show(best.bpcer)}"
        )
    return lines


def show(rate: object) -> str:
    value, low, high = (getattr(rate, field) for field in ("value", "low", "high"))
    return f"{value:6.1%}  ({low:.1%} .. {high:.1%}, n = {getattr(rate, 'total', '?')})"


def cost(engine: FaceEngine, pictures: list[Pixels]) -> tuple[float, float]:
    """Median ms of liveness for a given face, and of detection, alignment and embedding.

    Processor time of one thread, which excludes other processes on the machine.
    """
    judged, embedded = [], []
    for _ in range(5):
        for picture in pictures:
            start = time.process_time()
            engine.embed(picture)
            embedded.append(time.process_time() - start)
            sample = engine.sample(picture)
            start = time.process_time()
            engine.liveness(sample)
            judged.append(time.process_time() - start)
    return 1e3 * float(np.median(judged)), 1e3 * float(np.median(embedded))


def sources(root: Path, engine: FaceEngine, presentations: Path | None) -> None:
    """Print the area under the ROC curve of every source, for us and the peers."""
    spec = engine.pack.liveness
    if spec is None:
        raise SystemExit(f"{engine.pack.name} has no liveness model")
    teachers, classifier = Peers(root), engine._optional("liveness", "liveness model")
    names = ["left out", "as shipped", "pair", "MiniFASNet"]
    rows: dict[str, list[tuple[bool, float, float, float]]] = defaultdict(list)
    for p in real(root):
        odds = teachers.odds(p.pixels, p.box)
        _, added = classifier.evidence(p.pixels, p.box)
        ours = spec.cues.bias + sum(added.values())
        rows[p.source].append((p.species != GENUINE, ours, pair_score(odds), float(odds[2])))
    left_out: dict[str, tuple[float, int]] = {}
    if presentations is not None:
        from liveness import Data

        data = Data(presentations)
        left_out = data.areas(data.left_out())
    found: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for source, answers in sorted(rows.items()):
        attack = np.array([row[0] for row in answers])
        counts[source] = int(min(attack.sum(), (~attack).sum()))
        if counts[source] >= 5:
            scores = np.array([row[1:] for row in answers]).T
            areas = [auc(score[attack], score[~attack]) for score in scores]
            found[source] = [left_out.get(source, (float("nan"), 0))[0], *areas]
    print(f"{'source':14}{'n':>5}" + "".join(f"{name:>12}" for name in names))
    for source, areas in found.items():
        print(f"{source:14}{counts[source]:5}" + "".join(f"{area:12.3f}" for area in areas))
    every = np.array(list(found.values()))
    large = every[[counts[source] >= 30 for source in found]]
    print(f"{'mean':14}{len(every):5}" + "".join(f"{v:12.3f}" for v in every.mean(axis=0)))
    print(f"{'worst, n >= 30':14}{len(large):5}" + "".join(f"{v:12.3f}" for v in large.min(axis=0)))


def genuine(root: Path, engine: FaceEngine, every: int) -> None:
    """Print the share of genuine pictures classified as attacks; one in `every` of LFW's."""
    sets = {
        "LFW": (
            [root / "lfw/images" / n for n in sorted(tested_pictures(root))[::every]],
            "central",
        ),
        "London": (sorted((root / "faces/london").glob("*.jpg")), "largest"),
    }
    for name, (paths, face) in sets.items():
        called, codes = [], Counter[str]()
        for path in paths:
            try:
                called.append(engine.liveness(path, face=face).is_attack)
            except FacecoreError as error:
                codes[error.code] += 1
        print(f"{name}: called attacks {show(rate(np.array(called)))}; no answer {dict(codes)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lfw", type=int, default=150, help="LFW pictures to recapture")
    parser.add_argument("--london", type=int, default=25, help="London pictures to recapture")
    parser.add_argument(
        "--poor", action="store_true",
        help="genuine pictures of cameras out of focus, noisy, of low JPEG quality too; the "
        "recaptures' cameras always are of all kinds",
    )  # fmt: skip
    parser.add_argument("--sources", type=Path, help="reference data with liveness/*.tar.gz")
    parser.add_argument("--left-out", type=Path, metavar="FILE", help="what presentations.py wrote")
    parser.add_argument("--genuine", action="store_true", help="genuine test pictures alone")
    parser.add_argument("--every", type=int, default=1, help="take one of so many LFW pictures")
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--json", type=Path, help="write every score")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    root = Path(os.environ.get("FACECORE_DATA", REPO.parent / "shared"))
    if not (root / "lfw").is_dir():
        raise SystemExit(f"{root}/lfw is not there; set FACECORE_DATA")
    engine = FaceEngine(args.pack, threads=1, min_recognizability=0)
    if args.sources:
        return sources(args.sources, engine, args.left_out)
    if args.genuine:
        return genuine(root, engine, args.every)
    judges: dict[str, Callable[[FaceSample], float]] = {
        args.pack: lambda sample: engine.liveness(sample).attack_score,
        **peers(root),
    }
    threshold = engine.pack.liveness.threshold if engine.pack.liveness else 50.0
    found: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    missed, some = 0, []
    for name, kind, pixels in reference(root, args.lfw, args.london, not args.poor):
        try:
            sample = engine.sample(pixels, face="central" if name == "lfw" else "largest")
            answers = {judge: score(sample) for judge, score in judges.items()}
        except NoFaceDetected:  # a recapture without a detected face does not pass
            missed += 1
            continue
        except FacecoreError as error:
            print(f"{name}, {kind}: {error}", file=sys.stderr)
            continue
        for judge, score in answers.items():
            found[judge].append((name, kind, score))
        if kind == AS_IT_IS and sum(name == n for n, _ in some) < 12:
            some.append((name, pixels))
    for judge, rows in found.items():
        print(f"\n{judge}, at attack score {threshold:g}")
        print("\n".join(table(rows, threshold)))
    print(f"\npresentations in which no face was found: {missed}")
    for name in sorted({name for name, _ in some}):
        judged, embedded = cost(engine, [pixels for n, pixels in some if n == name])
        print(
            f"{name}: liveness {judged:.1f} ms, detection to embedding {embedded:.1f} ms, "
            f"ratio {judged / embedded:.0%}"
        )
    if args.json:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
