"""hnswlib's graph as plain arrays, validated before hnswlib loads it.

hnswlib's own loader trusts its files and follows counts and links out of bounds.  This module
reads the graph from the pickling state of `hnswlib.Index` and restores it the same way, after
checking every count and every link.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore._utils.extras import require_extra
from facecore.errors import IndexCorrupt, MissingExtra

__all__ = ["MAX_M", "Graph", "new_hnswlib"]

MAX_M = 512
SEED = 100
MAX_LEVEL = 64  # hnswlib draws levels at random; half of this has never occurred
# On level 0, hnswlib's deletion mark (unused here) shares a word with the count of links.
COUNT = np.uint32(0xFFFF)


def new_hnswlib(dimension: int, m: int, ef_construction: int, capacity: int) -> Any:
    """Make an empty `hnswlib.Index` of inner products.

    Raises
    ------
    MissingExtra
        hnswlib is not installed, or its version has an unknown memory layout.
    """
    index = require_extra("hnswlib", "hnsw").Index("ip", dimension)
    index.init_index(capacity, M=m, ef_construction=ef_construction, random_seed=SEED)
    (state,) = index.__getstate__()
    node = _node(m, dimension)
    layout = ("ser_version", "offset_data", "label_offset", "size_data_per_element")
    known = (1, node.fields["vector"][1], node.fields["label"][1], node.itemsize)  # type: ignore[index]
    if tuple(state.get(key) for key in layout) != known:
        raise MissingExtra(
            "this version of hnswlib has another memory layout", "pip install 'facecore[hnsw]'"
        )
    return index


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The links of a hierarchical navigable small world graph of n nodes.

    Attributes
    ----------
    m : int
        Links per new node and level; up to twice as many on level 0.
    ef_construction : int
        Width of the search for links.
    entry : int
        Node on the highest level, where searches begin.
    levels : ndarray, shape (n,), uint8
        Highest level of each node.
    links : ndarray, shape (n, 1 + 2 m), uint32
        Level 0: number of links, then their target nodes, then zeros.
    upper : ndarray, shape (sum of levels, 1 + m), uint32
        The same for levels 1, 2, ... of each node, node after node.

    References
    ----------
    Malkov, Yashunin: Efficient and robust approximate nearest neighbor search using
    Hierarchical Navigable Small World graphs, https://doi.org/10.1109/TPAMI.2018.2889473
    """

    m: int
    ef_construction: int
    entry: int
    levels: NDArray[np.uint8]
    links: NDArray[np.uint32]
    upper: NDArray[np.uint32]

    @classmethod
    def of(cls, index: Any) -> tuple[Graph, NDArray[np.int64]]:
        """Extract the graph of an `hnswlib.Index` and the label of each node, shape (n,)."""
        (state,) = index.__getstate__()
        m, count = state["M"], state["cur_element_count"]
        nodes = state["data_level0"].view(_node(m, index.dim))
        levels = state["element_levels"][:count].astype(np.uint8)
        links = _without_rests(nodes["links"].copy())
        upper = _without_rests(state["link_lists"].view(np.uint32).reshape(-1, 1 + m).copy())
        labels = nodes["label"].astype(np.int64)
        graph = cls(m, state["ef_construction"], state["enterpoint_node"], levels, links, upper)
        return graph, labels

    def to_hnswlib(self, vectors: NDArray[np.float32]) -> Any:
        """Make an `hnswlib.Index` of the graph; node i has the vector i and the label i.

        Raises
        ------
        MissingExtra
        """
        count, dimension = vectors.shape
        index = new_hnswlib(dimension, self.m, self.ef_construction, capacity=1)
        (state,) = index.__getstate__()
        nodes = np.empty(count, _node(self.m, dimension))
        nodes["links"], nodes["vector"], nodes["label"] = self.links, vectors, np.arange(count)
        state |= {
            "seed": SEED + count,  # else new nodes would repeat the levels of the first ones
            "ep_added": True,
            "max_elements": count,
            "cur_element_count": count,
            "max_level": int(self.levels[self.entry]),
            "enterpoint_node": self.entry,
            "label_lookup_external": np.arange(count, dtype=np.uint64),
            "label_lookup_internal": np.arange(count, dtype=np.uint32),
            "element_levels": self.levels.astype(np.int32),
            "data_level0": nodes.view(np.int8),
            "link_lists": self.upper.reshape(-1).view(np.int8),
        }
        return type(index)(params=state)

    def check(self) -> None:
        """Check that no link leads outside the graph or to a level its target does not have.

        Raises
        ------
        IndexCorrupt
        """
        count = len(self.levels)
        levels = self.levels.astype(np.int64)
        if not self.entry < count or levels.max() > MAX_LEVEL:
            raise IndexCorrupt("the graph's entry or a level is out of range")
        if levels[self.entry] != levels.max():
            raise IndexCorrupt("the graph's entry is not on its highest level")
        if levels.sum() != len(self.upper):
            raise IndexCorrupt("the graph's levels do not fit its links")
        for name, lists, most in (("links", self.links, 2 * self.m), ("upper", self.upper, self.m)):
            if lists[:, 0].max(initial=0) > most or lists[:, 1:].max(initial=0) >= count:
                raise IndexCorrupt(f"the graph's {name} are out of range")
        ends = np.cumsum(levels)
        owner = np.repeat(np.arange(count), levels)
        level = np.arange(len(self.upper)) - (ends - levels)[owner] + 1
        there = np.arange(self.m) < self.upper[:, :1]
        if (there & (levels[self.upper[:, 1:]] < level[:, None])).any():
            raise IndexCorrupt("a link of the graph leads to a level that its target does not have")

    def save(self, folder: Path) -> None:
        """Write ``levels.u1``, ``links.u4`` and ``upper.u4``."""
        self.levels.tofile(folder / "levels.u1")
        self.links.astype("<u4", copy=False).tofile(folder / "links.u4")
        self.upper.astype("<u4", copy=False).tofile(folder / "upper.u4")


def _node(m: int, dimension: int) -> np.dtype[np.void]:
    """Return the layout of a node in hnswlib's level-0 memory."""
    return np.dtype(
        [("links", "<u4", (1 + 2 * m,)), ("vector", "<f4", (dimension,)), ("label", "<u8")]
    )


def _without_rests(lists: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Zero the unused end of each list, where hnswlib leaves dropped links."""
    lists[:, 0] &= COUNT
    lists[:, 1:][np.arange(lists.shape[1] - 1) >= lists[:, :1]] = 0
    return lists
