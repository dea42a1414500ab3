"""Indexes of templates: exact (`ExactIndex`) and approximate (`HnswIndex`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facecore.gallery.index.exact import ExactIndex
from facecore.gallery.index.protocol import Index

if TYPE_CHECKING:
    from facecore.gallery.index.hnsw import HnswIndex

__all__ = ["ExactIndex", "HnswIndex", "Index"]


def __getattr__(name: str) -> Any:
    if name == "HnswIndex":  # lazy: only this index needs hnswlib
        from facecore.gallery.index.hnsw import HnswIndex

        return HnswIndex
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
