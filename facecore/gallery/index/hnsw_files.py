"""Files of an HNSW index: writing, and reading with full validation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore.errors import IndexCorrupt
from facecore.gallery.index.hnsw_graph import MAX_M, Graph
from facecore.matching.similarity import MAX_DIMENSION, are_unit

__all__ = ["REMOVED", "HnswFiles", "load", "save"]

FORMAT = 1
HEADER = "hnsw.json"
REMOVED = -1  # in place of an id
MAX_ROWS = (1 << 31) - 1
_BLOCK = 1 << 14  # rows


@dataclass(frozen=True, slots=True, eq=False)
class HnswFiles:
    """Contents of the files; row i belongs to node i of the graph.

    Attributes
    ----------
    dimension, m, ef_construction : int
    graph : Graph or None
        None if there are no rows.
    ids : ndarray, shape (n,), int64
        `REMOVED` for removed rows.
    labels : ndarray, shape (n,), int32
    vectors : ndarray, shape (n, D), float32
    """

    dimension: int
    m: int
    ef_construction: int
    graph: Graph | None
    ids: NDArray[np.int64]
    labels: NDArray[np.int32]
    vectors: NDArray[np.float32]


def save(folder: Path, saved: HnswFiles, order: NDArray[np.int64]) -> None:
    """Write the files, without any data of removed vectors.

    Parameters
    ----------
    folder : Path
        An existing empty folder.
    saved : HnswFiles
        Ids, labels and vectors in any order.
    order : ndarray, int64
        Row of `saved` for each node.
    """
    graph = saved.graph
    header: dict[str, Any] = {
        "format": FORMAT,
        "dimension": saved.dimension,
        "m": saved.m,
        "ef_construction": saved.ef_construction,
        "rows": len(order),
        "upper": len(graph.upper) if graph else 0,
        "entry": graph.entry if graph else 0,
    }
    (folder / HEADER).write_bytes(_encoded(header))
    if graph is None:
        return
    graph.save(folder)
    ids = saved.ids[order]
    ids.astype("<i8", copy=False).tofile(folder / "ids.i8")
    np.where(ids == REMOVED, 0, saved.labels[order]).astype("<i4").tofile(folder / "labels.i4")
    with (folder / "vectors.f4").open("wb") as file:
        for start in range(0, len(order), _BLOCK):
            part = np.arange(start, min(start + _BLOCK, len(order)))
            rows = saved.vectors[order[part]].astype("<f4", copy=False)
            gone = np.flatnonzero(ids[part] == REMOVED)
            rows[gone] = _between_neighbours(saved.vectors, order, ids, graph.links[part[gone]])
            rows.tofile(file)


def load(folder: Path) -> HnswFiles:
    """Read and validate the files.

    Raises
    ------
    IndexCorrupt
        The files are missing, damaged, or contradict each other.
    """
    header = _header(folder / HEADER)
    dimension, m, count = header["dimension"], header["m"], header["rows"]
    shape = (dimension, m, header["ef_construction"])
    if not count:
        empty = np.empty((0, dimension), np.float32)
        return HnswFiles(*shape, None, np.empty(0, np.int64), np.empty(0, np.int32), empty)
    graph = Graph(
        m=m,
        ef_construction=header["ef_construction"],
        entry=header["entry"],
        levels=_read(folder / "levels.u1", "u1", (count,)),
        links=_read(folder / "links.u4", "<u4", (count, 1 + 2 * m)),
        upper=_read(folder / "upper.u4", "<u4", (header["upper"], 1 + m)),
    )
    graph.check()
    ids = _read(folder / "ids.i8", "<i8", (count,))
    labels = _read(folder / "labels.i4", "<i4", (count,))
    vectors = _read(folder / "vectors.f4", "<f4", (count, dimension))
    live = ids != REMOVED
    if ids.min() < REMOVED or labels.min() < 0:
        raise IndexCorrupt(f"an id or a label in {folder} is out of range")
    if (np.diff(np.sort(ids[live])) == 0).any():
        raise IndexCorrupt(f"duplicate id in {folder}")
    # A removed row has the mean direction of its neighbours, or zeros if it has none.
    if not are_unit(vectors if live.all() else vectors[live | vectors.any(axis=1)]):
        raise IndexCorrupt(f"a vector in {folder} is out of range")
    return HnswFiles(*shape, graph, ids, labels, vectors)


def _between_neighbours(
    vectors: NDArray[np.float32],
    order: NDArray[np.int64],
    ids: NDArray[np.int64],
    links: NDArray[np.uint32],
) -> NDArray[np.float32]:
    """Compute the mean direction of each removed node's neighbours: searches pass through it.

    The directions contain no data of the removed vectors.
    """
    middles = np.zeros((len(links), vectors.shape[1]), np.float32)
    for i, (number, *nodes) in enumerate(links.tolist()):
        near = np.array(nodes[:number], np.int64)
        middle = vectors[order[near[ids[near] != REMOVED]]].sum(axis=0, dtype=np.float64)
        length = np.linalg.norm(middle)
        if length > 0:
            middles[i] = middle / length
    return middles


def _encoded(header: dict[str, Any]) -> bytes:
    return json.dumps(header, indent=1).encode()


def _header(path: Path) -> dict[str, int]:
    try:
        data = path.read_bytes()
        header = json.loads(data)
        fits = (
            _encoded(header) == data
            and all(type(value) is int and value >= 0 for value in header.values())
            and header["format"] == FORMAT
            and 1 <= header["dimension"] <= MAX_DIMENSION
            and 2 <= header["m"] <= MAX_M
            and 1 <= header["ef_construction"] <= MAX_ROWS
            and max(header["rows"], header["upper"], header["entry"]) <= MAX_ROWS
        )
    except OSError as error:
        raise IndexCorrupt(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise IndexCorrupt(f"{path} is damaged, or of another format")
    return dict(header)


def _read(path: Path, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    size = int(np.prod(shape, dtype=object)) * np.dtype(kind).itemsize
    try:
        with path.open("rb") as file:
            found = file.seek(0, 2)
            if found != size:
                raise IndexCorrupt(f"{path} has {found} bytes, not {size}")
            file.seek(0)
            data = np.fromfile(file, kind)
    except OSError as error:
        raise IndexCorrupt(f"{path} cannot be read: {error.strerror or error}") from None
    if data.nbytes != size:
        raise IndexCorrupt(f"{path} ends too early")
    return data.reshape(shape)
