"""Clustering of labelled pictures against DBSCAN and HDBSCAN, and all pairs against faiss.

    python -m benchmarks clusters DIR        # one folder per person, such as lfw/images
    python -m benchmarks clusters DIR --keep lfw.npz --pairs 100000   # all pairs beside faiss
    python -m benchmarks clusters DIR --keep lfw.npz --drawn 10000 100000 1000000
    python -m benchmarks clusters DIR --keep lfw.npz --switch 10000 50000   # exact and HNSW

Uses the face nearest to the centre of each picture.  The peers use their best settings, tuned on
the same labels; facecore uses its defaults.  Drawn vectors have the mean and covariances of DIR's.
Their threshold is the one that `cluster` chooses for that number of faces; ``--switch`` uses
a cosine of 0.62.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from facecore import FaceEngine
from facecore.collections import FoundFace, cluster, folder_duplicates
from facecore.evaluation.vectors import embed_all
from facecore.face.detection import Face
from facecore.gallery import neighbours
from facecore.gallery.thresholds import score_threshold
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


def labelled(engine: FaceEngine, folder: Path, keep: Path | None) -> tuple[Array, Array]:
    """Return vectors and names of a folder's people, from an earlier run's file if it exists."""
    if keep is not None and keep.exists():
        kept = np.load(keep)
        return kept["vectors"], kept["truth"]
    people, paths = zip(*pictures_of_people(folder), strict=True)
    embedded = embed_all(engine, paths, "central", True)
    rows = np.flatnonzero(embedded.found)
    vectors, truth = embedded.vectors[rows], np.array(people)[rows]
    if keep is not None:
        np.savez(keep, vectors=vectors, truth=truth)
    return vectors, truth


def as_faces(vectors: Array) -> list[FoundFace]:
    return [
        FoundFace(Path(f"{i}.jpg"), str(i), 0, NO_FACE, vector) for i, vector in enumerate(vectors)
    ]


def own(faces: list[FoundFace], table: Calibration, far: float) -> Array:
    place = {id(face): i for i, face in enumerate(faces)}
    answer = np.empty(len(faces), int)
    for number, person in enumerate(cluster(faces, table, far).people):
        answer[[place[id(face)] for face in person.faces]] = number
    return answer


def peers(vectors: Array) -> Any:
    from sklearn.cluster import DBSCAN, HDBSCAN

    distance = np.clip(1 - vectors @ vectors.T, 0, 2).astype(np.float64)
    distance = (distance + distance.T) / 2  # HDBSCAN requires exact symmetry
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


def listed(
    name: str, sets: list[Any], numbers: dict[int, int], truth: Array, true: int
) -> dict[str, Any]:
    """Count the pairs of different people and of one person that the sets list."""
    same = [
        truth[numbers[id(one.members[pair.first])]] == truth[numbers[id(one.members[pair.second])]]
        for one in sets
        for pair in one.pairs
    ]
    result = {"name": name, "wrong": same.count(False), "found": sum(same), "true": true}
    print(f"{name:34} {result['wrong']} wrong, {result['found']} of {true} found", flush=True)
    return result


def drawn(vectors: Array, truth: Array, count: int) -> Array:
    """Draw vectors like real ones: the same mean and covariances, five pictures a person."""
    random = np.random.default_rng(0)
    people, number, sizes = np.unique(truth, return_inverse=True, return_counts=True)
    means = np.zeros((len(people), vectors.shape[1]))
    np.add.at(means, number, vectors)
    means /= sizes[:, None]
    several = sizes > 1
    inside = (vectors - means[number])[several[number]]
    within = inside.T @ inside / (sizes[several] - 1).sum()
    between = np.cov(vectors.T) - within

    def sample(covariance: Array, number: int) -> Array:
        values, axes = np.linalg.eigh(covariance)
        values = np.sqrt(np.clip(values, 0, None))
        return (random.normal(size=(number, len(values))) * values @ axes.T).astype(np.float32)

    centres = sample(between, count // 5) + vectors.mean(axis=0)
    found = centres[random.integers(0, len(centres), count)]
    for start in range(0, count, 1 << 16):  # a million vectors: no copy in float64
        block = found[start : start + (1 << 16)]
        block += sample(within, len(block))
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return found


def all_pairs(vectors: Array, least: float, rounds: tuple[int, ...]) -> list[dict[str, Any]]:
    """Time all pairs against faiss, with each number of processors in `rounds`."""
    import faiss

    pairs_above(vectors[:6000], least)  # compile the kernel before timing
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    results = []
    for threads in rounds:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        faiss.omp_set_num_threads(threads)

        def own() -> int:
            return len(pairs_above(vectors, least))

        def theirs() -> int:
            hits = sum(
                len(index.range_search(vectors[start : start + 4096], least)[2])
                for start in range(0, len(vectors), 4096)
            )
            return (hits - len(vectors)) // 2

        for name, run in (("facecore", own), ("faiss", theirs)):
            wall, start = time.perf_counter(), time.process_time()
            found = run()
            result = {
                "name": f"{name}, {threads} threads",
                "pairs": found,
                "cpu_seconds": time.process_time() - start,
                "seconds": time.perf_counter() - wall,
            }
            results.append(result)
            print(
                f"{result['name']:22} {len(vectors):,} x {vectors.shape[1]} at {least:.3f}:"
                f" {found:,} pairs, {result['cpu_seconds']:.1f} s of processor,"
                f" {result['seconds']:.1f} s",
                flush=True,
            )
    return results


def exact_and_graph(vectors: Array, least: float) -> dict[str, Any]:
    """Time all pairs by the exact scan and by the graph; also find the graph's share of them."""
    found, times = [], []
    pairs_above(vectors[:6000], least)  # compile the kernel before timing
    most = neighbours.MOST_EXACT
    for neighbours.MOST_EXACT in (len(vectors), 0):
        start = time.process_time()
        found.append(len(neighbours.near_pairs(vectors, least)))
        times.append(time.process_time() - start)
    neighbours.MOST_EXACT = most
    result = {"name": f"{len(vectors):,} drawn", "exact": times[0], "graph": times[1]}
    result["share"] = found[1] / max(1, found[0])
    print(*(f"{key} {value}" for key, value in result.items()), sep=", ", flush=True)
    return result


def cluster_drawn(vectors: Array, table: Calibration, far: float) -> dict[str, Any]:
    """Measure the time of clustering, and its memory beyond that of the vectors."""
    faces = as_faces(vectors)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, start = time.perf_counter(), time.process_time()
    answer = cluster(faces, table, far)
    result = {
        "name": f"cluster {len(faces):,} drawn",
        "groups": len(answer.people),
        "cpu_seconds": time.process_time() - start,
        "seconds": time.perf_counter() - wall,
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }
    print(*(f"{key} {value}" for key, value in result.items()), sep=", ", flush=True)
    return result


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="one folder per person")
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--keep", type=Path, help="keep the vectors in this .npz for the next run")
    parser.add_argument("--far", type=float, nargs="*", default=[0.9])
    parser.add_argument("--duplicates", type=int, default=1000, help="pictures of that table")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--pairs", type=int, help="compare so many vectors drawn beside faiss")
    parser.add_argument("--drawn", type=int, nargs="*", help="cluster so many vectors drawn")
    parser.add_argument("--switch", type=int, nargs="*", help="all pairs beside an HNSW graph")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    results: list[dict[str, Any]] = []
    engine = FaceEngine(args.pack)
    table = engine.calibration
    vectors, truth = labelled(engine, args.folder, args.keep)
    if args.pairs:
        least = float(table.similarity(score_threshold(table, args.far[0], args.pairs - 1)))
        processors = len(os.sched_getaffinity(0))
        results += all_pairs(drawn(vectors, truth, args.pairs), least, (processors, 1))
    for count in args.switch or ():
        results.append(exact_and_graph(drawn(vectors, truth, count), 0.62))
    for count in args.drawn or ():
        results.append(cluster_drawn(drawn(vectors, truth, count), table, args.far[0]))
    if not (args.pairs or args.drawn or args.switch):
        faces = as_faces(vectors)
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
        sizes = np.unique(truth[pick], return_counts=True)[1]
        true = int((sizes * (sizes - 1) // 2).sum())
        some = [faces[i] for i in pick]
        for far in (0.001, 0.01, 0.1):
            sets = folder_duplicates(some, table, far)
            results.append(listed(f"duplicates, far {far:g}", sets, numbers, truth, true))
        for threshold in (90, 92, 94, 96):
            sets = folder_duplicates(some, table, threshold=threshold)
            results.append(listed(f"duplicates, score {threshold}", sets, numbers, truth, true))
        start = time.process_time()
        for name, labels in () if args.no_peers else peers(vectors):
            results.append(line(name, judge(truth, alone(labels)), time.process_time() - start))
            start = time.process_time()
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
