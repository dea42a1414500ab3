"""The files of an exact index: one plain NumPy array for each field, read with distrust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from facecore.errors import IndexCorrupt
from facecore.gallery.index.code_storage import Fields, Rows
from facecore.gallery.validation import are_unit
from facecore.matching.similarity import MAX_DIMENSION, Codes

__all__ = ["ExactFiles", "save"]

_KINDS: dict[str, np.dtype[Any]] = {
    "ids": np.dtype("<i8"),
    "labels": np.dtype("<i4"),
    "scales": np.dtype("<f4"),
    "errors": np.dtype("<f4"),
    "values": np.dtype("i1"),
    "vectors": np.dtype("<f4"),
}
_VERSION = (1, 0)


def save(folder: Path, dimension: int, rows: Rows, labels: list[int]) -> None:
    """Write ``ids.npy``, ``labels.npy`` and so on; ``vectors.npy`` only if they are kept.

    Parameters
    ----------
    folder : Path
    dimension : int
    rows : Rows
    labels : list of int
        What each number in the field "groups" stands for.
    """
    names = np.array(labels, np.int32)
    for name in ("ids", "labels", "scales", "errors", "values", "vectors"):
        if name == "vectors" and not rows.has_vectors:
            continue
        shape = (rows.count, dimension) if name in ("values", "vectors") else (rows.count,)
        kind = _KINDS[name]
        with (folder / f"{name}.npy").open("wb") as file:
            header = {"descr": kind.str, "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, header)
            for fields in rows.parts():
                if name == "labels":
                    part = names[fields["groups"]]
                else:
                    part = fields[name][:, :dimension] if len(shape) == 2 else fields[name]
                file.write(np.ascontiguousarray(part, kind).data)


class ExactFiles:
    """What `save` wrote, read in parts.

    Parameters
    ----------
    folder : Path
    vectors : bool
        Whether the float32 rows are wanted.

    Attributes
    ----------
    dimension, count : int

    Raises
    ------
    IndexCorrupt
    """

    def __init__(self, folder: Path, vectors: bool) -> None:
        self._folder = folder
        self._names = [name for name in _KINDS if vectors or name != "vectors"]
        # Where the data of each file begins, and the length of its rows.
        self._starts: dict[str, int] = {}
        shapes = {name: self._open(name) for name in self._names}
        if len(shapes["values"]) != 2 or not 1 <= shapes["values"][1] <= MAX_DIMENSION:
            raise IndexCorrupt(f"values.npy has the shape {shapes['values']}")
        self.count, self.dimension = shapes["values"]
        for name, shape in shapes.items():
            wanted = shapes["values"] if name in ("values", "vectors") else (self.count,)
            if shape != wanted:
                raise IndexCorrupt(f"{name}.npy has the shape {shape}, not {wanted}")

    def read(self, start: int, stop: int) -> Fields:
        """Some rows, checked: each value is one that an index can hold."""
        fields: Fields = {name: self._rows(name, start, stop) for name in self._names}
        codes = fields["values"]
        fields["values"] = np.zeros((stop - start, Codes.width(self.dimension)), np.int8)
        fields["values"][:, : self.dimension] = codes
        scales, errors = fields["scales"].astype(float), fields["errors"].astype(float)
        # Rounding leaves out at most half a step of each element, here with room for float32.
        most = scales * (np.sqrt(self.dimension) * 0.501)
        checks = {
            "an id": (fields["ids"] >= 0).all(),
            "a label": (fields["labels"] >= 0).all(),
            "a scale": (np.isfinite(scales) & (scales > 0)).all(),
            "an error": ((errors >= 0) & (errors <= most)).all(),  # not so if it is NaN
            "a code": (codes != -128).all(),
            "a vector": "vectors" not in fields or are_unit(fields["vectors"]),
        }
        for what, fits in checks.items():
            if not fits:
                raise IndexCorrupt(f"{what} in {self._folder} is out of range")
        return fields

    def _open(self, name: str) -> tuple[int, ...]:
        path = self._folder / f"{name}.npy"
        try:
            with path.open("rb") as file:
                if npy.read_magic(file) != _VERSION:
                    raise IndexCorrupt(f"{path} has another version of the format")
                shape, fortran, kind = npy.read_array_header_1_0(file)
                self._starts[name] = file.tell()
                size = file.seek(0, 2)
        except (OSError, ValueError) as error:
            raise IndexCorrupt(f"{path} cannot be read: {error}") from None
        if fortran or kind != _KINDS[name]:
            raise IndexCorrupt(f"{path} holds {kind}, not {_KINDS[name]} in rows")
        if size != self._starts[name] + int(np.prod(shape, dtype=object)) * kind.itemsize:
            raise IndexCorrupt(f"{path} has {size} bytes, which does not fit its shape {shape}")
        return tuple(shape)

    def _rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        kind = _KINDS[name]
        columns = self.dimension if name in ("values", "vectors") else 1
        try:
            with (self._folder / f"{name}.npy").open("rb") as file:
                file.seek(self._starts[name] + start * columns * kind.itemsize)
                data: NDArray[Any] = np.fromfile(file, kind, (stop - start) * columns)
        except OSError as error:
            raise IndexCorrupt(f"{name}.npy cannot be read: {error}") from None
        if len(data) != (stop - start) * columns:
            raise IndexCorrupt(f"{name}.npy ends too early")
        return (
            data.reshape(stop - start, columns)
            if columns > 1 or name in ("values", "vectors")
            else data
        )
