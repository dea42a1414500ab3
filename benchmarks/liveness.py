"""Liveness errors: recaptures accepted, by attack type, and genuine faces rejected.

Attacks are simulated (weights/training/recapture.py) with held-out parameters, from faces not used
in training: LFW pictures of the test pairs at 0.7 to 3 times their size, and the London set at its
original size.  Genuine pictures are the same pictures, unchanged and as seen by the simulated
camera with held-out parameters.  MiniFASNet is tested on the same pictures if its weights exist.

    python -m benchmarks liveness [--lfw 150] [--london 25] [--folder OWN] [--json OUT]

OWN holds real pictures in genuine/ and attack-NAME/.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facecore import FacecoreError, FaceEngine, FaceSample, NoFaceDetected, images
from facecore.evaluation.attacks import AttackErrors, attack_errors, bpcer_at_apcer

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "weights" / "training"))

from data import tested_pictures  # noqa: E402
from media import SPECIES  # noqa: E402
from recapture import photograph, read_folder, recapture  # noqa: E402

Pixels = NDArray[np.uint8]
Presentations = Iterator[tuple[str, str, Pixels]]  # set, "as it is" or "camera" or species, pixels
GENUINE_LFW = 1000  # as they are
AS_IT_IS, CAMERA = "as it is", "camera"


def minifasnet(path: Path) -> Callable[[FaceSample], float]:
    """Attack score of VietAnh954/face-antispoof-onnx (Apache-2.0), on the crop it expects."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def score(sample: FaceSample) -> float:
        x1, y1, x2, y2 = sample.face.box
        side = 1.35 * max(x2 - x1, y2 - y1)
        corner = np.array([(x1 + x2 - side) / 2, (y1 + y2 - side) / 2])
        matrix = np.array([[side / 128, 0, corner[0]], [0, side / 128, corner[1]]])
        flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(
            sample.pixels, matrix, (128, 128), flags=flags, borderMode=cv2.BORDER_REFLECT_101
        )
        tensor = (crop[None, ..., ::-1].transpose(0, 3, 1, 2) / 255).astype(np.float32)
        live, *spoof = session.run(None, {name: tensor})[0][0]
        return float(100 / (1 + np.exp(live - np.logaddexp.reduce(spoof))))

    return score


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


def own(folder: Path) -> Presentations:
    for species, path in read_folder(folder):
        try:
            yield folder.name, AS_IT_IS if species == "genuine" else species, images.load(path)
        except FacecoreError as error:
            print(f"{path}: {error}", file=sys.stderr)


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
        for kind, rate in errors.apcer.items():
            lines.append(f"{name:7} APCER, {kind:9} {show(rate)}")
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lfw", type=int, default=150, help="LFW pictures to recapture")
    parser.add_argument("--london", type=int, default=25, help="London pictures to recapture")
    parser.add_argument(
        "--poor", action="store_true", help="cameras out of focus, noisy, of low JPEG quality too"
    )
    parser.add_argument("--folder", type=Path, help="real pictures of your own instead")
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--json", type=Path, help="write every score")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    root = Path(os.environ.get("FACECORE_DATA", REPO.parent / "shared"))
    if args.folder is None and not (root / "lfw").is_dir():
        raise SystemExit(f"{root}/lfw is not there; set FACECORE_DATA, or give --folder")
    engine = FaceEngine(args.pack, threads=1)
    judges: dict[str, Callable[[FaceSample], float]] = {
        args.pack: lambda sample: engine.liveness(sample).attack_score
    }
    other = root / "weights/minifasnet/minifas_128.onnx"
    if other.is_file():
        judges["MiniFASNet"] = minifasnet(other)
    threshold = engine.pack.liveness.threshold if engine.pack.liveness else 50.0
    found: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    missed, some = 0, []
    for name, kind, pixels in (
        own(args.folder) if args.folder else reference(root, args.lfw, args.london, not args.poor)
    ):
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
