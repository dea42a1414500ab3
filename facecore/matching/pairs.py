r"""Find all pairs of vectors whose cosine reaches a threshold, exactly and block by block.

The vectors are rotated onto the principal axes of their second moment, which concentrates their
length in the first columns and preserves dot products.  With h the first columns and t the
others, the Cauchy-Schwarz inequality gives

.. math:: x \cdot y \le h_x \cdot h_y + \lVert t_x \rVert \lVert t_y \rVert

The right side is itself a dot product, with the norm of t as one more column of h.  Both this
bound and the full product use integers, :math:`\hat x = \mathrm{round}(S x)`.  The norms are
rounded up, which never lowers the bound; no other column is off by more than 1/2, so with W of
them

.. math:: |S^2 \, x \cdot y - \hat x \cdot \hat y| \le S \sqrt W (1 + 10^{-3}) + W / 4

The cosine of a pair that passes both tests is computed from the float32 vectors.  No N x N matrix
is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from facecore._utils.cpus import usable_cpus
from facecore._utils.threads import at_once
from facecore.errors import InvalidParameter
from facecore.matching.scanning import afford_numpy, kernel
from facecore.matching.similarity import NORM_TOLERANCE, cosine

__all__ = ["MAX_PAIRS", "Pairs", "iterate_pairs", "pairs_above", "too_many_pairs"]

MAX_PAIRS = 100_000_000  # 1.2 GB, and twice that while their blocks are joined

_PROBES, _ROWS = 256, 8192  # size of a tile
_SAMPLE = 5_000  # approximate number of vectors for computing the axes
_SCALE = 32_000  # keeps the integers within 16 bits, and sums of products within 32
_HEADS = (8, 16, 24, 32, 48, 64)  # widths of the first test, in steps of two columns
_TRIED = 1024  # rows and probes to try these widths on
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
                raise too_many_pairs(least)
            parts.append(part)
    return Pairs(
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.second for part in parts]),
        np.concatenate([part.similarity for part in parts]),
    )


def too_many_pairs(least: float) -> InvalidParameter:
    """Create the error of `pairs_above`."""
    return InvalidParameter(
        f"more than {MAX_PAIRS:,} pairs have a similarity of {least:.3f} or more",
        "use a lower far, or fewer pictures of one person",
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
    table = _Table(vectors, least)
    starts = range(0, count, _PROBES)
    threads = usable_cpus()
    for i in range(0, len(starts), threads):
        some = starts[i : i + threads]
        tasks = [partial(table.find, start) for start in some]
        for start, (first, second) in zip(some, at_once(tasks), strict=True):
            done = min(start + _PROBES, count)
            yield done, _exact(vectors, first, second, least)


class _Table:
    """Rotated vectors as 16-bit integers, compared tile by tile over the lower triangle."""

    def __init__(self, vectors: NDArray[np.float32], least: float) -> None:
        from facecore.matching.tiles import PROBES, ROWS

        self.count, dimension = vectors.shape
        sample = vectors[:: max(1, self.count // _SAMPLE)].astype(np.float64)
        axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]  # in order of decreasing eigenvalue
        self.head = _choose_head(sample @ axes, least, ROWS, PROBES)
        # Column 0 holds the norm of the columns that the first test leaves out, column 1 is zero.
        width = 2 + dimension + dimension % 2
        error = _SCALE * np.sqrt(width) * (1 + NORM_TOLERANCE) + width / 4
        least = least if least > -1 else -1.01  # similarities are clipped to -1
        self.limit = math.floor(least * _SCALE**2 - error) - 1
        self.run = kernel("pairs")
        self.sums = (PROBES, ROWS)
        padded = -(-self.count // _PROBES) * _PROBES
        # Layout of `tiles.multiply_tile`: blocks of rows, and in them step by step.
        self.rows = np.zeros((padded // ROWS, width // 2, ROWS, 2), np.int16)
        for start in range(0, self.count, _EXACT):
            turned = vectors[start : start + _EXACT].astype(np.float64) @ axes * _SCALE
            codes = np.zeros((-(-len(turned) // ROWS) * ROWS, width), np.int16)
            codes[: len(turned), 2 : 2 + dimension] = np.rint(turned)
            tail = np.linalg.norm(turned[:, 2 * self.head - 2 :], axis=1)
            codes[: len(turned), 0] = np.ceil(tail)
            blocks = codes.reshape(-1, ROWS, width // 2, 2).swapaxes(1, 2)
            self.rows[start // ROWS :][: len(blocks)] = blocks

    def find(self, start: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Find candidate pairs of 256 vectors with all earlier vectors."""
        _, steps, size, _ = self.rows.shape
        blocks = self.rows[start // size : (start + _PROBES) // size]
        probes = blocks.swapaxes(1, 2).reshape(_PROBES, 2 * steps).view(np.int32)
        sums = np.empty(self.sums, np.int32)
        first, second = np.empty((2, _ROWS * _PROBES), np.int32)
        found: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        for row in range(0, start + _PROBES, _ROWS):
            stop = min(row + _ROWS, start + _PROBES)
            rows = self.rows[row // size : stop // size].reshape(-1, steps, 2 * size)
            count = self.run(rows, probes, row, start, self.head, self.limit, sums, first, second)
            found.append((first[:count].copy(), second[:count].copy()))
        pairs = np.concatenate(found, axis=1)
        pairs = pairs[:, pairs[1] < self.count]  # drop pairs with padding
        return pairs[0], pairs[1]


def _choose_head(turned: NDArray[np.float64], least: float, rows: int, probes: int) -> int:
    """Choose the width of the first test, in steps, with the least work on a sample of pairs.

    The cost is the steps of the first test, plus all steps for each tile that passes it.
    """
    one, other = turned[::2][:_TRIED], turned[1::2][:_TRIED]
    one, other = one[: len(one) // rows * rows], other[: len(other) // probes * probes]
    steps = turned.shape[1] // 2 + 1
    costs = {}
    for head in (head for head in _HEADS if head <= steps):
        cut = 2 * head - 2
        bound = one[:, :cut] @ other[:, :cut].T
        bound += np.outer(*(np.linalg.norm(some[:, cut:], axis=1) for some in (one, other)))
        shape = len(one) // rows, rows, len(other) // probes, probes
        tiles = (bound >= least).reshape(shape).any(axis=(1, 3))
        costs[head] = head + steps * tiles.sum() / max(1, tiles.size)
    return min(costs, key=costs.__getitem__, default=steps)


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
