"""Accuracy on poor pictures: LFW's pairs with one picture degraded, by pack.

The first picture of a pair is the unchanged reference; the second is the probe, degraded before
detection, alignment and embedding.  LFW's pictures have 250x250 pixels with a centred face of about
110.  A probe without a vector (no face, or refused) counts as a wrong decision and, for pairs of
one person, as a false rejection.

    python -m benchmarks robustness
    python -m benchmarks robustness --pack compact --only none --only blur --folds 2
    python -m benchmarks robustness --json robustness.json     # resumes where it was stopped
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks._measuring import describe, machine, write_json
from facecore import FaceEngine, images
from facecore.errors import FacecoreError, PackNotFound
from facecore.evaluation.metrics import k_fold_accuracy, tar_at_far
from facecore.evaluation.readers import read_lfw_pairs
from facecore.matching.similarity import cosine

Pixels = NDArray[np.uint8]

FAR = 0.001
CHUNK = 256  # pictures in memory, for all packs
FACE = (62, 188)  # extent of the face in a 250-pixel picture, on both axes


def blurred(pixels: Pixels, name: str) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 2.0), np.uint8)


def jpeg(pixels: Pixels, name: str) -> Pixels:
    _, coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 30])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def smaller(times: int) -> Callable[[Pixels, str], Pixels]:
    def shrink(pixels: Pixels, name: str) -> Pixels:
        size = (round(pixels.shape[1] / times), round(pixels.shape[0] / times))
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

    return shrink


def brighter(gain: float) -> Callable[[Pixels, str], Pixels]:
    return lambda pixels, name: np.asarray(cv2.convertScaleAbs(pixels, alpha=gain), np.uint8)


def grey(pixels: Pixels, name: str) -> Pixels:
    return np.asarray(
        cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8
    )


def rolled(pixels: Pixels, name: str) -> Pixels:
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 15, 1)
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(pixels, turn, (width, height), borderMode=border), np.uint8)


def covered(pixels: Pixels, name: str) -> Pixels:
    """Draw a grey square of a fifth of the face's area, at a place fixed by the name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    side = round((FACE[1] - FACE[0]) * 0.2**0.5)
    x, y = np.random.default_rng(seed).integers(FACE[0], FACE[1] - side + 1, 2)
    pixels = pixels.copy()
    pixels[y : y + side, x : x + side] = 128
    return pixels


CONDITIONS: dict[str, tuple[str, Callable[[Pixels, str], Pixels]]] = {
    "none": ("as it is", lambda pixels, name: pixels),
    "blur": ("blur, σ 2 pixels", blurred),
    "jpeg": ("JPEG quality 30", jpeg),
    "half": ("half resolution", smaller(2)),
    "quarter": ("quarter resolution", smaller(4)),
    "brighter": ("brightness +30 %", brighter(1.3)),
    "darker": ("brightness −30 %", brighter(0.7)),
    "grey": ("grey", grey),
    "roll": ("roll of 15°", rolled),
    "cover": ("20 % of the face covered", covered),
}


def embed(
    engines: dict[str, FaceEngine],
    folder: Path,
    names: list[str],
    change: Callable[[Pixels, str], Pixels],
    title: str,
) -> dict[str, NDArray[np.float32]]:
    """Return vectors (N, D) by pack, NaN where there is none; decodes each picture once."""
    found: dict[str, list[NDArray[np.float32]]] = {pack: [] for pack in engines}
    with tqdm(total=len(names) * len(engines), desc=title, unit="image", disable=None) as bar:
        for start in range(0, len(names), CHUNK):
            part = names[start : start + CHUNK]
            pictures = [change(images.load(folder / name), name) for name in part]
            for pack, engine in engines.items():
                lacking = np.full(engine.pack.embedder.output.dimension, np.nan, np.float32)
                for answer in engine.embed_many(pictures, face="central"):
                    found[pack].append(lacking if isinstance(answer, FacecoreError) else answer)
                    bar.update()
    return {pack: np.stack(vectors) for pack, vectors in found.items()}


def judge(
    pairs: list[tuple[int, bool, str, str]],
    references: dict[str, NDArray[np.float32]],
    probes: dict[str, NDArray[np.float32]],
) -> dict[str, Any]:
    similarity = cosine(
        np.stack([references[pair[2]] for pair in pairs]),
        np.stack([probes[pair[3]] for pair in pairs]),
    )
    fold, same = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    folds = k_fold_accuracy(similarity, same, fold)
    met = ~np.isnan(similarity)
    return {
        "accuracy": float(folds.mean()),
        "standard_error": float(folds.std(ddof=1) / len(folds) ** 0.5),
        "tar": tar_at_far(similarity[same], similarity[~same & met], FAR),
        "probes": len(probes),
        "without_face": int(sum(np.isnan(vector[0]) for vector in probes.values())),
    }


def identity(engine: FaceEngine, folds: int) -> str:
    """Identify the inputs of a stored result, apart from this script."""
    models = engine.pack.embedder.sha256[:16], engine.pack.detector.sha256[:16]
    return f"{' '.join(models)} {folds} folds"


def packs(names: list[str]) -> Iterator[tuple[str, FaceEngine]]:
    for name in names:
        try:
            yield name, FaceEngine(name)
        except PackNotFound as error:
            print(f"{name} is left out: {error}")


def table(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "| probe | " + " | ".join(f"`{pack}` | TAR | no face" for pack in results) + " |"
    yield "|---|" + "---|" * (3 * len(results))
    for key, (title, _) in CONDITIONS.items():
        cells = []
        for of_pack in results.values():
            if r := of_pack.get(key):
                accuracy = f"{100 * r['accuracy']:.2f} % ± {100 * r['standard_error']:.2f}"
                cells += [accuracy, f"{100 * r['tar']:.1f} %", str(r["without_face"])]
            else:
                cells += ["", "", ""]
        if any(cells):
            yield f"| {title} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", action="append", help="default: compact and mobilefacenet")
    parser.add_argument("--only", action="append", choices=CONDITIONS, help="default: all")
    parser.add_argument("--folds", type=int, default=10, help="the first N, for a trial")
    parser.add_argument("--json", type=Path, help="results, which a later run goes on from")
    args = parser.parse_args()
    root = Path(os.environ.get("FACECORE_DATA", Path(__file__).parents[2] / "shared")) / "lfw"
    if not root.is_dir():
        raise SystemExit(f"{root} is not there; set FACECORE_DATA")
    pairs = [pair for pair in read_lfw_pairs(root / "pairs.txt") if pair[0] < args.folds]
    first, second = (sorted({pair[i] for pair in pairs}) for i in (2, 3))
    engines = dict(packs(args.pack or ["compact", "mobilefacenet"]))
    facts = machine(("onnxruntime", "opencv-python-headless"))
    print(describe(facts))
    results: dict[str, dict[str, Any]] = {}
    of: dict[str, str] = {}
    if args.json and args.json.exists():
        old = json.loads(args.json.read_text("utf-8"))
        results, of = old["results"], old["of"]
    for pack, engine in engines.items():
        if of.get(pack) != (now := identity(engine, args.folds)):
            results[pack], of[pack] = {}, now
    references: dict[str, dict[str, NDArray[np.float32]]] = {}
    for key in args.only or CONDITIONS:
        missing = {pack: e for pack, e in engines.items() if key not in results[pack]}
        if lacking := {pack: e for pack, e in missing.items() if pack not in references}:
            made = embed(lacking, root / "images", first, CONDITIONS["none"][1], "references")
            references |= {p: dict(zip(first, v, strict=True)) for p, v in made.items()}
        made = embed(missing, root / "images", second, CONDITIONS[key][1], key) if missing else {}
        for pack, vectors in made.items():
            probes = dict(zip(second, vectors, strict=True))
            results[pack][key] = judge(pairs, references[pack], probes)
        write_json(args.json, facts, of=of, results=results)
    print("\n".join(table({pack: results[pack] for pack in engines})))


if __name__ == "__main__":
    main()
