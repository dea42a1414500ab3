"""Clustering of labelled pictures against DBSCAN and HDBSCAN, and all pairs against faiss.

    python -m benchmarks clusters DIR        # one folder per person, such as lfw/images
    python -m benchmarks clusters --pairs 30000

One face of each picture: the one nearest to the centre.  The peers use their best settings, tuned
on the same labels; facecore uses its defaults.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from facecore import FaceEngine
from facecore.collections import FoundFace, cluster, folder_duplicates
from facecore.evaluation.vectors import embed_all
from facecore.face.detection import Face
from facecore.images.folders import pictures_of_people
from facecore.matching.calibration import Calibration
from facecore.matching.pairs import pairs_above

Array = np.ndarray[Any, Any]
NO_FACE = Face(np.zeros(4, np.float32), np.zeros((5, 2), np.float32), 1.0)


def judge(truth: Array, answer: Array) -> dict[str, float]:
    """BCubed and pairwise precision, recall and F (Bagga and Baldwin 1998)."""
    t, a = (np.unique(labels, return_inverse=True)[1] for labels in (truth, answer))
    _, both, shared = np.unique(t * (a.max() + 1) + a, return_inverse=True, return_counts=True)
    of_answer, of_truth = np.bincount(a), np.bincount(t)
    precision = float((shared[both] / of_answer[a]).mean())
    recall = float((shared[both] / of_truth[t]).mean())

    def pairs(sizes: Array) -> int:
        return int((sizes * (sizes - 1) // 2).sum())

    return {
        "bcubed_f": 2 * precision * recall / (precision + recall),
        "bcubed_precision": precision,
        "bcubed_recall": recall,
        "pair_precision": pairs(shared) / max(1, pairs(of_answer)),
        "pair_recall": pairs(shared) / max(1, pairs(of_truth)),
    }


def own(faces: list[FoundFace], table: Calibration, far: float) -> Array:
    place = {id(face): i for i, face in enumerate(faces)}
    answer = np.empty(len(faces), int)
    for number, person in enumerate(cluster(faces, table, far).people):
        answer[[place[id(face)] for face in person.faces]] = number
    return answer


def peers(vectors: Array) -> Any:
    from sklearn.cluster import DBSCAN, HDBSCAN

    distance = np.clip(1 - vectors @ vectors.T, 0, 2).astype(np.float64)
    distance = (distance + distance.T) / 2  # HDBSCAN asks for the last bit
    np.fill_diagonal(distance, 0)
    for eps in np.arange(0.38, 0.56, 0.02):
        for least in (1, 3):
            labels = DBSCAN(eps=eps, min_samples=least, metric="precomputed").fit_predict(distance)
            yield f"DBSCAN eps {eps:.2f} min_samples {least}", labels
    for least in (1, 2):
        for method in ("eom", "leaf"):
            made = HDBSCAN(
                min_cluster_size=2,
                min_samples=least,
                metric="precomputed",
                cluster_selection_method=method,
                copy=True,
            )
            yield f"HDBSCAN min_samples {least} {method}", made.fit_predict(distance)


def alone(labels: Array) -> Array:
    """Turn noise points into groups of one."""
    labels = labels.copy()
    noise = np.flatnonzero(labels < 0)
    labels[noise] = labels.max() + 1 + np.arange(len(noise))
    return labels


def line(name: str, result: dict[str, float], seconds: float) -> dict[str, Any]:
    print(f"{name:34}", *(f"{v:.4f}" for v in result.values()), f"{seconds:.1f} s", flush=True)
    return {"name": name, **result, "cpu_seconds": seconds}


def all_pairs(count: int, dimension: int, least: float) -> dict[str, float]:
    import faiss

    random = np.random.default_rng(0)
    # Like embeddings: a falling spectrum, and several pictures per person.
    spread = np.linspace(1.6, 0.2, dimension)
    people = random.normal(size=(count // 5, dimension)) * spread
    vectors = people[random.integers(0, len(people), count)]
    vectors = vectors + 0.45 * random.normal(size=vectors.shape) * spread
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pairs_above(vectors[:6000], least)  # compiled
    wall, start = time.perf_counter(), time.process_time()
    found = pairs_above(vectors, least)
    own_times = time.perf_counter() - wall, time.process_time() - start
    index = faiss.IndexFlatIP(dimension)
    index.add(vectors)
    wall, start, hits = time.perf_counter(), time.process_time(), 0
    for block in range(0, count, 4096):
        hits += len(index.range_search(vectors[block : block + 4096], least)[2])
    theirs = time.perf_counter() - wall, time.process_time() - start
    print(
        f"{count:,} x {dimension}, {least:.2f}: {len(found):,} pairs; faiss {(hits - count) // 2:,}"
    )
    print(f"facecore {own_times[0]:.1f} s wall, {own_times[1]:.1f} s processor")
    print(f"faiss    {theirs[0]:.1f} s wall, {theirs[1]:.1f} s processor")
    return {"pairs": len(found), "own_cpu": own_times[1], "faiss_cpu": theirs[1]}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="one folder per person")
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--far", type=float, nargs="*", default=[0.15])
    parser.add_argument("--duplicates", type=int, default=1000, help="pictures of that table")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--pairs", type=int, default=0, help="vectors drawn, beside faiss")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    if not (args.folder or args.pairs):
        parser.error("give a folder, --pairs, or both")
    results: list[dict[str, Any]] = []
    if args.folder:
        engine = FaceEngine(args.pack)
        people, paths = zip(*pictures_of_people(args.folder), strict=True)
        embedded = embed_all(engine, paths, "central", True)
        rows = np.flatnonzero(embedded.found)
        vectors, truth = embedded.vectors[rows], np.array(people)[rows]
        table = engine.calibration
        faces = [
            FoundFace(paths[row], str(i), 0, NO_FACE, vector)
            for i, (row, vector) in enumerate(zip(rows, vectors, strict=True))
        ]
        half = np.isin(truth, np.unique(truth)[::2])
        for name, chosen in (("", half | True), (" half 1", half), (" half 2", ~half)):
            some = [face for face, yes in zip(faces, chosen, strict=True) if yes]
            for far in args.far:
                start = time.process_time()
                answer = own(some, table, far)
                seconds = time.process_time() - start
                results.append(
                    line(f"facecore far {far}{name}", judge(truth[chosen], answer), seconds)
                )
        pick = np.random.default_rng(0).permutation(len(faces))[: args.duplicates]
        numbers = {id(faces[i]): i for i in pick}
        sets = folder_duplicates([faces[i] for i in pick], table, 0.001)
        listed = [
            truth[numbers[id(s.members[p.first])]] == truth[numbers[id(s.members[p.second])]]
            for s in sets
            for p in s.pairs
        ]
        sizes = np.unique(truth[pick], return_counts=True)[1]
        true = int((sizes * (sizes - 1) // 2).sum())
        print(f"duplicates of {len(pick):,}: {listed.count(False)} wrong, {sum(listed)} of {true}")
        found = {"wrong": listed.count(False), "found": sum(listed), "true": true}
        results.append({"name": "duplicates", **found})
        start = time.process_time()
        for name, labels in () if args.no_peers else peers(vectors):
            results.append(line(name, judge(truth, alone(labels)), time.process_time() - start))
            start = time.process_time()
    if args.pairs:
        results.append(all_pairs(args.pairs, 160, 0.55))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
