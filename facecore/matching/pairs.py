r"""Find all pairs of vectors whose cosine reaches a threshold, exactly and block by block.

The vectors are rotated onto the principal axes of their second moment, which concentrates their
length in the first columns and preserves dot products.  With h the first columns and t the
others, the Cauchy-Schwarz inequality gives

.. math:: x \cdot y \le h_x \cdot h_y + \lVert t_x \rVert \lVert t_y \rVert

which rules out most pairs after 64 columns of their 8-bit codes.  With e the norm of the
quantisation error, the codes of the remaining pairs bound the cosine:

.. math:: |x \cdot y - \hat x \cdot \hat y|
          \le \lVert x \rVert e_y + \lVert y \rVert e_x + e_x e_y

Only pairs whose bound reaches the threshold are computed from the float32 vectors.  No N x N
matrix is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from facecore._utils.cpus import usable_cpus
from facecore._utils.threads import at_once
from facecore.errors import InvalidParameter
from facecore.matching.scanning import afford_numpy, kernel
from facecore.matching.similarity import NORM_TOLERANCE, Codes, cosine, encode

__all__ = ["MAX_PAIRS", "Pairs", "iterate_pairs", "pairs_above"]

MAX_PAIRS = 100_000_000  # 1.6 GB

_PROBES, _ROWS = 256, 2048  # size of a tile
_SAMPLE = 5_000  # approximate number of vectors for computing the axes
_SLACK = np.float32(2e-6)  # exceeds the float32 error of rotating and summing
_EXACT = 1 << 15  # pairs per block of exact computation


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of vectors, sorted by the second index, then by the first.

    Attributes
    ----------
    first, second : ndarray, shape (P,), int32
        Indices of the vectors, ``first < second``.
    similarity : ndarray, shape (P,), float32
        Cosines.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    similarity: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)


_NONE = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))


def pairs_above(vectors: NDArray[np.float32], least: float, *, progress: bool = False) -> Pairs:
    """Find all pairs whose cosine is at least `least`.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        Of unit length.
    least : float
        -1..1.
    progress : bool, default False
        Show a progress bar on standard error.

    Raises
    ------
    InvalidParameter
        More than 100 million pairs reach `least`.
    """
    from tqdm import tqdm

    parts, count = [_NONE], 0
    with tqdm(total=len(vectors), unit="face", desc="comparing", disable=not progress) as bar:
        for done, part in iterate_pairs(vectors, least):
            bar.update(done - bar.n)
            count += len(part)
            if count > MAX_PAIRS:
                raise InvalidParameter(
                    f"more than {MAX_PAIRS:,} pairs have a similarity of {least:.3f} or more",
                    "use a lower far, or fewer pictures of one person",
                )
            parts.append(part)
    return Pairs(
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.second for part in parts]),
        np.concatenate([part.similarity for part in parts]),
    )


def iterate_pairs(vectors: NDArray[np.float32], least: float) -> Iterator[tuple[int, Pairs]]:
    """Yield the pairs of `pairs_above` block by block.

    Yields
    ------
    int, Pairs
        Number of vectors compared with all earlier ones so far, and the new pairs.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    count = len(vectors)
    limit = np.float32(least)
    if afford_numpy(count * count // 2):
        for start in range(0, count, _PROBES):
            block = vectors[start : start + _PROBES]
            similarity = block @ vectors[: start + len(block)].T
            near = similarity >= limit - np.float32(1e-5)  # exceeds the error of float32 sums
            row, column = np.nonzero(np.tril(near, start - 1))
            yield start + len(block), _exact(vectors, column, row + start, least)
        return
    step = max(1, count // _SAMPLE)
    sample = vectors[::step].astype(np.float64)
    axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]  # the longest first
    table = _Table(vectors, axes.astype(np.float32), limit)
    starts = range(0, count, _PROBES)
    threads = usable_cpus()
    for i in range(0, len(starts), threads):
        some = starts[i : i + threads]
        tasks = [partial(table.find, start) for start in some]
        for start, (first, second) in zip(some, at_once(tasks), strict=True):
            done = min(start + _PROBES, count)
            yield done, _exact(vectors, first, second, least)


class _Table:
    """Rotated vectors as 8-bit codes, compared tile by tile over the lower triangle."""

    def __init__(
        self, vectors: NDArray[np.float32], axes: NDArray[np.float32], limit: np.float32
    ) -> None:
        from facecore.matching.kernels import PAIRS_HEAD

        count, width = len(vectors), Codes.width(vectors.shape[1])
        self.run, self.limit = kernel("pairs", width), limit
        self.values = np.empty((count, width), np.int8)
        self.scales, self.margins, self.tails = np.empty((3, count), np.float32)
        for start in range(0, count, _EXACT):
            cut = slice(start, start + _EXACT)
            turned = vectors[cut] @ axes
            codes = encode(turned)
            self.values[cut], self.scales[cut] = codes.values, codes.scales
            # The product of two errors is at most half the sum of their squares.
            error = codes.errors
            self.margins[cut] = error * (1 + NORM_TOLERANCE) + error * error / 2 + _SLACK
            self.tails[cut] = np.linalg.norm(turned[:, PAIRS_HEAD:], axis=1)

    def find(self, start: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Find candidate pairs of 256 vectors with all earlier vectors."""
        cut = slice(start, min(start + _PROBES, len(self.values)))
        probes = self.values[cut].astype(np.int16)
        rows, others = np.empty((2, _ROWS * _PROBES), np.int32)
        found: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        for row in range(0, cut.stop, _ROWS):
            tile = slice(row, min(row + _ROWS, cut.stop))
            count = self.run(
                self.values[tile], self.scales[tile], self.margins[tile], self.tails[tile],
                probes, self.scales[cut], self.margins[cut], self.tails[cut],
                row, start, self.limit, rows, others,
            )  # fmt: skip
            found.append((rows[:count].copy(), others[:count].copy()))
        first, second = (np.concatenate(part) for part in zip(*found, strict=True))
        return first, second


def _exact(
    vectors: NDArray[np.float32],
    first: NDArray[np.integer],
    second: NDArray[np.integer],
    least: float,
) -> Pairs:
    """Select and sort the candidates that reach the threshold."""
    order = np.lexsort((first, second))
    i, j = first[order].astype(np.int32), second[order].astype(np.int32)
    similarity = np.empty(len(i))
    for start in range(0, len(i), _EXACT):
        cut = slice(start, start + _EXACT)
        similarity[cut] = cosine(vectors[i[cut]], vectors[j[cut]])
    kept = similarity >= least
    return Pairs(i[kept], j[kept], similarity[kept].astype(np.float32))
