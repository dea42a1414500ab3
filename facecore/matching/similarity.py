r"""Cosine similarity of unit vectors, and 8-bit codes that bound it from both sides.

A row :math:`x` is stored as integers :math:`c \in [-127, 127]^D` and a scale :math:`s`, with
:math:`\hat x = s c`, and an error bound :math:`e \ge \lVert x - \hat x \rVert`.  A probe
:math:`q` is coded in the same way with up to 16 bits.  From the triangle and Cauchy-Schwarz
inequalities

.. math:: |q \cdot x - \hat q \cdot \hat x|
          \le \lVert q \rVert e + \lVert q - \hat q \rVert (\lVert x \rVert + e)

so a scan of the codes determines which rows can be among the best, and only those are compared
in float32.  `scan_numpy` is the NumPy version of `facecore.matching.kernels`: both perform the
same operations in the same precision and agree to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore._utils.blas import multiply
from facecore.errors import InvalidParameter

__all__ = [
    "MAX_DIMENSION",
    "NORM_TOLERANCE",
    "Candidates",
    "Codes",
    "Probes",
    "are_unit",
    "as_probes",
    "as_vectors",
    "cosine",
    "dots",
    "encode",
    "encode_probes",
    "scan_numpy",
]

MAX_DIMENSION = 8192
NORM_TOLERANCE = 1e-3  # largest deviation of a unit vector's norm from 1

_UNIT_BLOCK = 1 << 16  # rows checked at a time

# Rows are zero-padded to a multiple of this, which spares the kernels a remainder loop.
_PADDING = 32
# Exceeds the float32 rounding error between a sum of products and a bound.
_ROUNDING = 1e-6
_BLOCK = 1024  # rows: fit in the cache


def as_vectors(vectors: ArrayLike, dimension: int) -> NDArray[np.float32]:
    """Convert to float32 and check that vectors have unit length within `NORM_TOLERANCE`.

    Returns
    -------
    ndarray, shape (n, D), float32

    Raises
    ------
    InvalidParameter
        The shape is wrong, the values are not numbers, or a vector does not have unit length.
    """
    rows = _as_float32(vectors)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise InvalidParameter(f"vectors have the shape {rows.shape}, must have (n, {dimension})")
    if not are_unit(rows):
        with np.errstate(all="ignore"):
            norms = np.linalg.norm(rows.astype(np.float64), axis=1)
        wrong = int(np.argmax(~(np.abs(norms - 1) <= NORM_TOLERANCE)))  # a NaN is wrong too
        raise InvalidParameter(
            f"vector {wrong} has length {norms[wrong]:.4g}, must have 1",
            "give vectors from FaceEngine.embed, or divide each by its norm",
        )
    return rows


def as_probes(vectors: ArrayLike, dimension: int) -> tuple[NDArray[np.float32], bool]:
    """Convert one vector or several like `as_vectors`; also return whether it is one."""
    rows = _as_float32(vectors)
    return as_vectors(np.atleast_2d(rows), dimension), rows.ndim == 1


def _as_float32(vectors: ArrayLike) -> NDArray[np.float32]:
    try:
        with np.errstate(all="ignore"):  # NaN and infinite vectors have no unit length
            rows = np.asarray(vectors)
            if rows.dtype.kind == "c":  # NumPy would drop the imaginary part
                raise TypeError("complex numbers")
            return rows.astype(np.float32, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidParameter("vectors must be an array of shape (n, D), float32") from error


def are_unit(rows: NDArray[np.float32]) -> bool:
    """Whether all rows have length 1 within `NORM_TOLERANCE`."""
    with np.errstate(all="ignore"):  # a signalling NaN would warn
        if len(rows) == 1:  # fast path for a single probe
            row = rows[0].astype(np.float64)
            return bool(abs(math.sqrt(np.dot(row, row)) - 1) <= NORM_TOLERANCE)
        for start in range(0, len(rows), _UNIT_BLOCK):
            part = rows[start : start + _UNIT_BLOCK]
            length = np.sqrt(np.einsum("ij,ij->i", part, part))
            if not (np.abs(length - 1) <= NORM_TOLERANCE).all():  # false for NaN
                return False
    return True


def dots(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute dot products row by row in float64.

    The order of summation depends on neither the other rows nor the order of the arguments:
    equal rows give equal results to the last bit.

    Parameters
    ----------
    a, b : ndarray, shape (..., D), float32

    Returns
    -------
    ndarray, shape (...), float64
    """
    # Of arrays in Fortran order, NumPy would add the columns in another order.
    left, right = a.astype(np.float64, order="C"), b.astype(np.float64, order="C")
    return np.asarray((left * right).sum(axis=-1))


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the cosine similarity of unit vectors row by row.

    The sum is computed in float64 and is symmetric: ``cosine(a, b) == cosine(b, a)`` to the
    last bit.

    Parameters
    ----------
    a, b : ndarray, shape (..., D), float32
        Of unit length.

    Returns
    -------
    ndarray, shape (...), float64
        Clipped to -1..1.
    """
    return np.asarray(np.clip(dots(a, b), -1.0, 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Rows as 8-bit codes.

    Attributes
    ----------
    values : ndarray, shape (N, W), int8
        -127..127; W is D rounded up (see `width`), and the padding is 0.
    scales : ndarray, shape (N,), float32
        Value of one quantisation step.
    errors : ndarray, shape (N,), float32
        Upper bound of the norm of the quantisation error.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    errors: NDArray[np.float32]

    @staticmethod
    def width(dimension: int) -> int:
        """Number of code columns for vectors of a dimension."""
        return -(-dimension // _PADDING) * _PADDING

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, start: int, stop: int) -> Codes:
        """Return a slice of the rows as a view."""
        cut = slice(start, stop)
        return Codes(self.values[cut], self.scales[cut], self.errors[cut])


def encode(vectors: NDArray[np.float32]) -> Codes:
    """Code rows with 8 bits; each row's scale maps its largest element to ±127.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        Finite.
    """
    count, dimension = vectors.shape
    values = np.zeros((count, Codes.width(dimension)), np.int8)
    scales, errors = np.empty(count, np.float32), np.empty(count, np.float32)
    for start in range(0, count, _BLOCK):
        cut = slice(start, start + _BLOCK)
        rows = vectors[cut]
        scale = np.abs(rows).max(axis=1) / np.float32(127)
        scale[scale == 0] = 1  # a row of zeros
        # Clip: the scale may have been rounded down.
        code = np.clip(np.rint(rows / scale[:, None]), -127, 127)
        left = rows.astype(np.float64) - code.astype(np.float64) * scale[:, None]
        values[cut, :dimension], scales[cut] = code, scale
        error = np.sqrt((left * left).sum(axis=1)).astype(np.float32)
        errors[cut] = np.nextafter(error, np.float32(np.inf))
    return Codes(values, scales, errors)


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """Coded probes; the error bound against a row with error e is ``gain e + offset``.

    Attributes
    ----------
    values : ndarray, shape (Q, W), int16
        Limited so that the sum of D products with codes fits in 32 bits.
    scales, gains, offsets : ndarray, shape (Q,), float32
    """

    values: NDArray[np.int16]
    scales: NDArray[np.float32]
    gains: NDArray[np.float32]
    offsets: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)


def encode_probes(vectors: NDArray[np.float32]) -> Probes:
    """Code probes with up to 16 bits, so that their sums of products fit in 32 bits.

    Parameters
    ----------
    vectors : ndarray, shape (Q, D), float32
        Finite and of unit length within `NORM_TOLERANCE`, like the rows.
    """
    count, dimension = vectors.shape
    largest = min(32767, (2**31 - 1) // (127 * dimension))
    exact = vectors.astype(np.float64)
    scales = (np.abs(exact).max(axis=1, initial=1e-30) / largest).astype(np.float32)
    steps = scales.astype(np.float64)[:, None]
    code = np.clip(np.rint(exact / steps), -largest, largest)
    values = np.zeros((count, Codes.width(dimension)), np.int16)
    values[:, :dimension] = code
    error = np.linalg.norm(exact - code * steps, axis=1)
    gains = np.linalg.norm(exact, axis=1) + error + _ROUNDING
    offsets = error * (1 + NORM_TOLERANCE) + _ROUNDING
    return Probes(values, scales, gains.astype(np.float32), offsets.astype(np.float32))


class Candidates:
    """Rows that can be among the k best of each probe, collected block by block.

    Attributes
    ----------
    best : ndarray, shape (Q, k), float32
        The k greatest lower bounds so far, as a min-heap.
    rows : ndarray, shape (Q, C), int64
    lower, upper : ndarray, shape (Q, C), float32
        Bounds of each row's similarity.
    counts : ndarray, shape (Q,), int64
        Number of the C places in use.
    """

    def __init__(self, probes: int, k: int) -> None:
        self.best = np.full((probes, k), -np.inf, np.float32)
        places = 1024 + 2 * k
        self.rows = np.empty((probes, places), np.int64)
        self.lower = np.empty((probes, places), np.float32)
        self.upper = np.empty((probes, places), np.float32)
        self.counts = np.zeros(probes, np.int64)

    def make_room(self, places: int) -> None:
        """Ensure at least `places` free places for each probe."""
        needed = int(self.counts.max()) + places
        have = self.rows.shape[1]
        if needed > have:
            more = ((0, 0), (0, max(needed, 2 * have) - have))
            self.rows = np.pad(self.rows, more)
            self.lower = np.pad(self.lower, more)
            self.upper = np.pad(self.upper, more)

    @staticmethod
    def merge(
        parts: list[Candidates], probe: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Merge one probe's rows that can still be among the k best, with their bounds."""
        best = np.concatenate([part.best[probe] for part in parts])
        least = np.partition(best, -parts[0].best.shape[1])[-parts[0].best.shape[1]]
        rows, lower, upper = (
            np.concatenate([getattr(part, name)[probe, : part.counts[probe]] for part in parts])
            for name in ("rows", "lower", "upper")
        )
        chosen = upper >= least
        return rows[chosen], lower[chosen], upper[chosen]


def scan_numpy(
    codes: Codes,
    groups: NDArray[np.int32],
    allowed: NDArray[np.bool_],
    probes: Probes,
    first: int,
    found: Candidates,
) -> None:
    """Collect the rows that can be among the k best of each probe.

    Parameters
    ----------
    codes : Codes
    groups : ndarray, shape (N,), int32
    allowed : ndarray, shape (G,), bool
        Groups to search; all if empty.
    probes : Probes
    first : int
        Index of the first row.
    found : Candidates
        Extended in place.
    """
    # Two columns at least: OpenBLAS splits the product with a single vector earlier.
    wanted = np.zeros((probes.values.shape[1], max(2, len(probes))))
    wanted[:, : len(probes)] = probes.values.T
    for start in range(0, len(codes), _BLOCK):
        part = codes.rows(start, start + _BLOCK)
        # The sums are integers below 2**31 and therefore exact in float64, in any order.
        sums = multiply(part.values.astype(np.float64), wanted).astype(np.float32)
        found.make_room(len(part))
        for j in range(len(probes)):
            similarity = sums[:, j] * part.scales * probes.scales[j]
            margin = part.errors * probes.gains[j] + probes.offsets[j]
            lower, upper = similarity - margin, similarity + margin
            chosen = upper >= found.best[j, 0]
            if len(allowed):
                chosen &= allowed[groups[start : start + _BLOCK]]
            at = np.flatnonzero(chosen)
            old = found.counts[j]
            new = slice(old, old + len(at))
            found.rows[j, new] = at + (first + start)
            found.lower[j, new], found.upper[j, new] = lower[at], upper[at]
            found.counts[j] += len(at)
            both = np.concatenate((found.best[j], lower[at]))
            found.best[j] = np.sort(both)[len(at) :]  # in ascending order: a heap
