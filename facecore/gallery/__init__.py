"""Galleries of stored faces: `Gallery`, bulk import, export, load and change of keys."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facecore.gallery.archive import export_groups, load_groups
    from facecore.gallery.bulk_import import import_pictures
    from facecore.gallery.gallery import Gallery
    from facecore.gallery.sqlite.rekey import rekey

__all__ = ["Gallery", "export_groups", "import_pictures", "load_groups", "rekey"]

_HOME = {
    "Gallery": "facecore.gallery.gallery",
    "export_groups": "facecore.gallery.archive",
    "import_pictures": "facecore.gallery.bulk_import",
    "load_groups": "facecore.gallery.archive",
    "rekey": "facecore.gallery.sqlite.rekey",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:  # lazy: an index is imported without the engine
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
