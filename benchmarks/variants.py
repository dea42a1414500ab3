"""Variants of the compact pack: size, speed, accuracy, and compatibility of their vectors.

Measures size, processor time of the bare models on one thread (next to MobileFaceNet's and
YuNet-n's), LFW View 2 and London.  Mixed: embeds the first picture of each LFW pair with the float
pack and the second with the variant.  Also prints the manifest's evidence on other people.

    python -m benchmarks variants
    python -m benchmarks variants --without-lfw      # skips the test pairs
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._measuring import describe, machine, write_json
from facecore import FaceEngine
from facecore.errors import PackNotFound
from facecore.evaluation.metrics import k_fold_accuracy, tar_at_far
from facecore.evaluation.protocols import london
from facecore.evaluation.readers import read_lfw_pairs
from facecore.evaluation.vectors import embed_all
from facecore.matching.similarity import cosine
from facecore.models.packs import load_pack
from facecore.models.session import open_model

PLAIN = "compact"
VARIANTS = (PLAIN, "compact-int8")
PEER = "mobilefacenet"
ROUNDS, WARM = 100, 5
FARS = (0.01, 0.001)


def latencies() -> dict[str, dict[str, float]]:
    """Median milliseconds by model and pack; all take turns.

    Thread processor time, not wall time: on a busy machine the scheduler interrupts runs longer
    than a time slice but not shorter ones, so wall time overstates the speed of short models.
    """
    rng = np.random.default_rng(0)
    runs: dict[str, Callable[[], object]] = {}
    for pack in (*VARIANTS, PEER):
        try:
            loaded = load_pack(pack)
        except PackNotFound as error:
            print(f"{pack} is left out: {error}")
            continue
        for role, shape in (("embedder", (1, 3, 112, 112)), ("detector", (1, 3, 256, 256))):
            spec = getattr(loaded.pack, role)
            session = open_model(spec, getattr(loaded, role), threads=1)
            pixels = rng.integers(0, 256, shape).astype(np.float32)
            stated = (np.array(v, np.float32) for v in (spec.input.mean, spec.input.std))
            mean, std = (values[:, None, None] for values in stated)
            feed = {spec.input.name: (pixels - mean) / std}
            runs[f"{role} {pack}"] = lambda s=session, f=feed: s.run(None, f)  # type: ignore[misc]
    times: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(ROUNDS):
        for key, run in runs.items():
            start = time.thread_time()
            run()
            times[key].append(time.thread_time() - start)
    found: dict[str, dict[str, float]] = {}
    for key, seconds in times.items():
        role, pack = key.split()
        found.setdefault(role, {})[pack] = 1e3 * float(np.median(seconds[WARM:]))
    return found


def judge(
    pairs: list[tuple[int, bool, str, str]],
    first: dict[str, NDArray[np.float32]],
    second: dict[str, NDArray[np.float32]],
) -> dict[str, float]:
    similarity = cosine(
        np.stack([first[pair[2]] for pair in pairs]), np.stack([second[pair[3]] for pair in pairs])
    )
    fold, same = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    folds = k_fold_accuracy(similarity, same, fold)
    met = ~np.isnan(similarity)
    return {
        "accuracy": float(folds.mean()),
        "standard_error": float(folds.std(ddof=1) / len(folds) ** 0.5),
        **{f"tar_{far:g}": tar_at_far(similarity[same], similarity[~same & met], far)
           for far in FARS},
    }  # fmt: skip


def lfw(root: Path, engines: dict[str, FaceEngine]) -> dict[str, dict[str, float]]:
    """View 2 by variant, alone and as probes against the float pack's references."""
    pairs = read_lfw_pairs(root / "pairs.txt")
    names = sorted({name for pair in pairs for name in pair[2:]})
    paths = [root / "images" / name for name in names]
    vectors = {
        pack: dict(zip(names, embed_all(engine, paths, "central", True).vectors, strict=True))
        for pack, engine in engines.items()
    }
    found = {pack: judge(pairs, own, own) for pack, own in vectors.items()}
    plain = vectors[PLAIN]
    for pack in VARIANTS[1:]:
        own = vectors[pack]
        found[f"{PLAIN} met by {pack}"] = judge(pairs, plain, own)
        both = cosine(np.stack(list(plain.values())), np.stack(list(own.values())))
        print(
            f"LFW View 2, the two vectors of a picture: cosine {np.nanmean(both):.4f} on average, "
            f"1 % below {np.nanquantile(both, 0.01):.4f}, "
            f"pictures without a vector {int(np.isnan(both).sum())}"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--without-lfw", action="store_true", help="leave View 2 alone")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    root = Path(os.environ.get("FACECORE_DATA", Path(__file__).parents[2] / "shared"))
    if not (root / "lfw").is_dir():
        raise SystemExit(f"{root} is not there; set FACECORE_DATA")
    facts = machine(("onnxruntime",))
    print(describe(facts))
    results: dict[str, Any] = {"milliseconds": latencies()}
    for role, times in results["milliseconds"].items():
        for pack, median in times.items():
            against = f"   {median / times[PEER]:5.2f} x {PEER}" if PEER in times else ""
            ratio = median / times[PLAIN]
            print(f"{role:9} {pack:14} {median:6.2f} ms   {ratio:5.2f} x {PLAIN}{against}")
    engines = {pack: FaceEngine(pack) for pack in VARIANTS}
    for pack, engine in engines.items():
        models = engine.pack.manifest.models
        sizes = {role: model.size for role, model in models.items()}
        listed = ", ".join(f"{role} {size / 1e6:.2f}" for role, size in sizes.items())
        size = f"{sum(sizes.values()) / 1e6:.2f} MB ({listed})"
        print(f"{pack}: {size}, contract {engine.contract_id}")
        results.setdefault("bytes", {})[pack] = sizes
        if evidence := engine.pack.embedder.interchange:
            print(
                f"  in place of {evidence.pack} on {evidence.pictures:,} pictures: cosine "
                f"{evidence.cosine_mean:.4f} on average, 1 % below {evidence.cosine_low:.4f}"
            )
            for rate in evidence.rates:
                print(
                    f"  at {rate.similarity:.3f}: FMR {rate.fmr:.4%}, mixed {rate.mixed_fmr:.4%}; "
                    f"FNMR {rate.fnmr:.2%}, mixed {rate.mixed_fnmr:.2%}"
                )
        own = london(engine, root / "faces" / "london")
        results.setdefault("london", {})[pack] = [own.genuine_passing, own.impostor_passing]
        print(
            f"  London: {own.genuine_passing} of {own.genuine} genuine passing, "
            f"{own.impostor_passing} of {own.impostor:,} impostors"
        )
    if not args.without_lfw:
        results["lfw"] = lfw(root / "lfw", engines)
        for title, r in results["lfw"].items():
            print(
                f"{title}: {r['accuracy']:.2%} ± {r['standard_error']:.2%}, TAR "
                + ", ".join(f"{r[f'tar_{far:g}']:.2%} at FAR {far:.1%}" for far in FARS)
            )
    write_json(args.json, facts, **results)


if __name__ == "__main__":
    main()
