"""Pictures in folders, one folder per person."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from facecore.errors import InvalidParameter

__all__ = ["pictures_of_people"]

_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def pictures_of_people(root: Path) -> list[tuple[str | None, Path]]:
    """All (person, file) below a folder that holds a folder per person, in order.

    Every file at any depth inside a person's folder counts, whatever its name: what is no
    picture will be reported when it is read.  A file right inside `root` counts if it is named
    as a picture; its person is None.  Hidden files and folders, as systems make them for
    thumbnails, never count.

    Raises
    ------
    InvalidParameter
        It is no folder, or cannot be read.
    """
    if not root.is_dir():
        raise InvalidParameter(f"{root} is not a folder", "give a folder that has one per person")
    found: list[tuple[str | None, Path]] = []
    try:
        for path in sorted(root.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                found += [(path.name, file) for file in _files(path)]
            elif path.suffix.lower() in _PICTURES and path.is_file():
                found.append((None, path))
    except OSError as error:
        place = error.filename or root
        raise InvalidParameter(f"{place} cannot be read: {error.strerror or error}") from error
    return found


def _files(folder: Path) -> list[Path]:
    found = []
    for here, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(here, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.is_file()]
    return sorted(found)


def _refuse(error: OSError) -> NoReturn:
    raise error
