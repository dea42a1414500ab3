"""Validation of an index's arguments before anything changes, and of its folder."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter
from facecore.matching.similarity import as_vectors

__all__ = ["as_count", "as_ids", "as_labels", "as_rows", "writes_into"]


def as_count(value: Any, name: str, least: int, most: int | None = None) -> int:
    """Validate a whole number from `least` on, up to `most` if given."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidParameter(f"{name} is {value!r:.80}, must be a whole number") from None
    if number < least or (most is not None and number > most):
        allowed = f"at least {least}" if most is None else f"within {least}..{most}"
        raise InvalidParameter(f"{name} is {number}, must be {allowed}")
    return number


def as_ids(ids: ArrayLike) -> NDArray[np.int64]:
    """Validate one-dimensional ids: int64, at least 0."""
    return _whole(ids, "ids", np.int64).astype(np.int64)


def as_labels(labels: ArrayLike) -> NDArray[np.int32]:
    """Validate one-dimensional labels: int32, at least 0."""
    return _whole(labels, "labels", np.int32).astype(np.int32)


def as_rows(
    ids: ArrayLike, vectors: ArrayLike, labels: ArrayLike | None, dimension: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int32]]:
    """Validate rows to add: equal lengths, unique ids; labels default to 0."""
    keys, rows = as_ids(ids), as_vectors(vectors, dimension)
    of = np.zeros(len(keys), np.int32) if labels is None else as_labels(labels)
    if not len(keys) == len(rows) == len(of):
        raise InvalidParameter(
            f"{len(keys)} ids, {len(rows)} vectors and {len(of)} labels: lengths must be equal"
        )
    if len(np.unique(keys)) != len(keys):
        raise InvalidParameter("the ids contain a duplicate")
    return keys, rows, of


@contextmanager
def writes_into(folder: Path) -> Iterator[None]:
    """Raise InvalidParameter if a file of the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise InvalidParameter(
            f"{folder} cannot be written: {error.strerror or error}",
            "name an existing folder that can be written, with enough space",
        ) from error


def _whole(numbers: ArrayLike, name: str, kind: type[np.signedinteger]) -> NDArray[np.integer]:
    try:
        array = np.asarray(numbers)
    except ValueError as error:
        raise InvalidParameter(f"{name} cannot be converted to an array: {error}") from None
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidParameter(
            f"{name} must be a list of whole numbers, not {array.dtype} {array.shape}"
        )
    if array.size and (array.min() < 0 or array.max() > np.iinfo(kind).max):
        raise InvalidParameter(f"{name} must be from 0 to {np.iinfo(kind).max}")
    return array
