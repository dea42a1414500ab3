"""Synthetic face templates (clustered unit vectors) and the methods that search them.

A person is a direction from a normal distribution whose variances fall as 1 / (1 + i / 32) over
the dimensions i, because no embedder fills its space evenly.  Each of the person's 1 to 7
templates (mean 4) is this direction plus normal noise.  The noise length is drawn per person:
log-normal, median 0.75, sigma 0.25.  Directions and templates have unit length.  `spread` reports
the resulting similarities.

With `like_compact`, the variances of people and noise fall as 1 / (1 + i / 12).  Then 160 numbers
have the statistics of compact's vectors of 17,000 pictures: participation ratio 92 to 98, standard
deviation of impostor similarities 0.107.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_BLOCK = 50_000  # people


def _scaled(rows: Array) -> Array:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def faces(
    count: int, probes: int, dimension: int = 128, seed: int = 0, *, like_compact: bool = False
) -> tuple[Array, Array]:
    """Return templates (count, D) in random order, and probes (probes, D) of some people."""
    rng = np.random.default_rng(seed)
    decay = 12 if like_compact else 32
    spectrum = np.sqrt(1 / (1 + np.arange(dimension) / decay)).astype(np.float32)
    shape = spectrum / np.sqrt(np.mean(spectrum**2)) if like_compact else np.float32(1)
    gallery = np.empty((count, dimension), np.float32)
    asked, done = [], 0
    order = rng.permutation(count)
    while done < count:
        number = rng.integers(1, 8, min(_BLOCK, max(1, (count - done) // 4)))
        people = _scaled(rng.standard_normal((len(number), dimension), np.float32) * spectrum)
        noise = rng.lognormal(np.log(0.75), 0.25, len(number)).astype(np.float32)
        noise /= np.sqrt(np.float32(dimension))
        whose = np.repeat(np.arange(len(number)), number)[: count - done]
        rows = rng.standard_normal((len(whose), dimension), np.float32) * noise[whose, None] * shape
        gallery[order[done : done + len(whose)]] = _scaled(rows + people[whose])
        some = rng.integers(0, whose[-1] + 1, 1 + probes * len(whose) // count)
        rows = rng.standard_normal((len(some), dimension), np.float32) * noise[some, None] * shape
        asked.append(_scaled(rows + people[some]))
        done += len(whose)
    wanted = np.concatenate(asked)
    return gallery, wanted[rng.permutation(len(wanted))[:probes]]


def near_duplicates(gallery: Array, probes: int, seed: int = 1) -> tuple[Array, Array]:
    """Return hard cases: repeated rows, equal or with single elements off by about 1e-7."""
    rng = np.random.default_rng(seed)
    rows = gallery[rng.integers(0, max(1, len(gallery) // 50), len(gallery))].copy()
    off = rng.random(len(rows)) < 0.7
    element = rng.integers(0, rows.shape[1], len(rows))
    rows[np.flatnonzero(off), element[off]] += rng.choice([-1e-7, 1e-7], off.sum())
    return rows, rows[rng.integers(0, len(rows), probes)]


def top_float64(gallery: Array, probes: Array, k: int, block: int = 1 << 12) -> Array:
    """Return ids (probes, k) of the most similar rows in float64, ties by lower id.

    A blocked matrix product finds all rows within 1e-12 of the k-th best; sums independent of the
    block boundaries then rank them.
    """
    found = np.empty((len(probes), k), np.int64)
    for start in range(0, len(probes), 500):
        wanted = probes[start : start + 500].astype(np.float64)
        least = np.full(len(wanted), -np.inf)
        hits: list[tuple[Array, Array, Array]] = []
        for first in range(0, len(gallery), block):
            product = wanted @ gallery[first : first + block].astype(np.float64).T
            if first == 0:  # initial floor; few rows pass it later
                at = max(0, product.shape[1] - k)
                least = np.partition(product, at, axis=1)[:, at] - 1e-12
            probe, row = np.nonzero(product >= least[:, None])
            hits.append((probe, row + first, product[probe, row]))
            if first // block % 16 == 15:
                hits = [_still(hits, least, k)]
        probe, row, _ = _still(hits, least, k)
        for j in range(len(wanted)):
            rows = row[probe == j]
            exact = (gallery[rows].astype(np.float64) * wanted[j]).sum(axis=1)
            found[start + j] = rows[np.lexsort((rows, -exact))[:k]]
    return found


def _still(
    hits: list[tuple[Array, Array, Array]], least: Array, k: int
) -> tuple[Array, Array, Array]:
    # Raise each probe's floor to its k-th best so far, and drop rows below it.
    probe, row, value = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    order = np.lexsort((-value, probe))
    probe, row, value = probe[order], row[order], value[order]
    rank = np.arange(len(probe)) - np.searchsorted(probe, probe)
    kth = rank == k - 1
    least[probe[kth]] = value[kth] - 1e-12
    keep = value >= least[probe]
    return probe[keep], row[keep], value[keep]


def spread(gallery: Array, probes: Array) -> dict[str, float]:
    """Mean and standard deviation of impostor similarities and of the probes' best matches."""
    some = probes[:200] @ gallery[: 1 << 20].T
    best = some.max(axis=1)
    return {
        "all_mean": float(some.mean()),
        "all_sd": float(some.std()),
        "best_mean": float(best.mean()),
        "best_sd": float(best.std()),
    }


Search = Callable[[Array, int], Array]  # probes (q, D), k -> ids (q, k)


def facecore_exact(gallery: Array, threads: int) -> Search:
    from facecore import warmup
    from facecore.gallery.index import ExactIndex

    warmup(gallery.shape[1])
    index = ExactIndex(gallery.shape[1], keep_vectors=False, threads=threads)
    for start in range(0, len(gallery), 20_000):
        part = gallery[start : start + 20_000]
        index.add(np.arange(start, start + len(part)), part)
    return lambda probes, k: index.search(probes, k, fetch=gallery.__getitem__)[0]


def numpy_scan(gallery: Array, threads: int) -> Search:
    def search(probes: Array, k: int) -> Array:
        ids = np.empty((len(probes), k), np.int64)
        for j, probe in enumerate(probes):  # fastest matrix-vector product for one probe
            similarity = gallery @ probe
            best = np.argpartition(similarity, len(similarity) - k)[-k:]
            ids[j] = best[np.argsort(-similarity[best])]
        return ids

    return search


def faiss_flat(gallery: Array, threads: int) -> Search:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return lambda probes, k: index.search(probes, k)[1]


def usearch_exact(gallery: Array, threads: int) -> Search:
    from usearch.index import MetricKind, search

    return lambda probes, k: np.asarray(
        search(gallery, probes, k, MetricKind.IP, exact=True, threads=threads).keys, np.int64
    ).reshape(len(probes), -1)


# To add a method, add a line.
METHODS: dict[str, Callable[[Array, int], Search]] = {
    "facecore exact": facecore_exact,
    "numpy": numpy_scan,
    "faiss flat": faiss_flat,
    "usearch exact": usearch_exact,
}
