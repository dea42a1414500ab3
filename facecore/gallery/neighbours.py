"""Find pairs of similar vectors: exactly, or with an HNSW graph for very many vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facecore.matching.pairs import MAX_PAIRS, Pairs, pairs_above, too_many_pairs

__all__ = ["near_pairs"]

# Extrapolated number of vectors above which the graph takes less processor time than comparing all
# pairs.  For 50,000 vectors, the graph takes 96 s and all pairs 1 s.  The time of the graph grows
# little faster than linearly, that of all pairs quadratically
# (`python -m benchmarks clusters --switch`).
MOST_EXACT = 5_000_000
_NEAREST = 32
_PROBES = 4096


def near_pairs(vectors: NDArray[np.float32], least: float, *, progress: bool = False) -> Pairs:
    """Find pairs of vectors whose cosine is at least `least`.

    Up to five million vectors, the result is that of `facecore.matching.pairs.pairs_above`.
    Of more vectors, each is paired with its 32 nearest neighbours in an HNSW graph.  This misses a
    few pairs, and many pairs within a large group of similar vectors.

    Parameters
    ----------
    vectors, least, progress
        As in `pairs_above`.

    Raises
    ------
    InvalidParameter
        As in `pairs_above`.
    MissingExtra
        A graph is needed, and hnswlib is not installed.
    """
    count = len(vectors)
    if count <= MOST_EXACT:
        return pairs_above(vectors, least, progress=progress)
    from tqdm import tqdm

    from facecore.gallery.index import HnswIndex

    index = HnswIndex(vectors.shape[1], deterministic=True)
    parts = []
    with tqdm(total=2 * count, unit="face", desc="comparing", disable=not progress) as bar:
        index.add(np.arange(count), vectors, progress=bar.update)
        for start in range(0, count, _PROBES):
            probes = np.arange(start, min(start + _PROBES, count))
            ids, similarity = index.search(vectors[probes], _NEAREST + 1)
            near = (similarity >= least) & (ids != probes[:, None])
            found, probe = ids[near], np.repeat(probes, near.sum(axis=1))
            key = np.maximum(found, probe) * count + np.minimum(found, probe)
            parts.append((key, similarity[near].astype(np.float32)))
            bar.update(len(probes))
    keys, similarities = (np.concatenate(part) for part in zip(*parts, strict=True))
    keys, once = np.unique(keys, return_index=True)  # most pairs were found from both ends
    if len(keys) > MAX_PAIRS:
        raise too_many_pairs(least)
    second, first = np.divmod(keys, count)
    return Pairs(first.astype(np.int32), second.astype(np.int32), similarities[once])
