"""List pictures of people from a folder per person or from a CSV file."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NoReturn

from facecore.errors import InvalidParameter

__all__ = ["listed_paths", "listed_pictures", "pictures_below", "pictures_of_people"]

# Includes HEIC and AVIF: without the extra that reads them, each picture's error names the extra.
_PICTURES = {
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".j2k",
    ".heic", ".heif", ".avif",
}  # fmt: skip


def pictures_of_people(root: Path | str) -> list[tuple[str | None, Path]]:
    """Return the sorted (person, file) pairs below a folder that holds a folder per person.

    Includes every file in a person's folder at any depth, with any name; a file that is not a
    picture, or a link whose target is gone, is reported when it is read.  A file directly in `root`
    is included if it has a picture's extension; its person is None.  Skips hidden files and
    folders, such as thumbnails.

    Raises
    ------
    InvalidParameter
        `root` is not a folder, or cannot be read.
    """
    root = Path(root)
    if not os.path.isdir(root):
        raise InvalidParameter(
            f"{root} is not a folder", "give a folder that holds a folder per person"
        )
    found: list[tuple[str | None, Path]] = []
    try:
        for path in sorted(root.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                found += [(path.name, file) for file in _files(path)]
            elif path.suffix.lower() in _PICTURES and _is_picture(path):
                found.append((None, path))
    except OSError as error:
        place = error.filename or root
        raise InvalidParameter(f"{place} cannot be read: {error.strerror or error}") from error
    return found


def pictures_below(root: Path | str) -> list[Path]:
    """Return the sorted, non-hidden files with a picture's extension at any depth below `root`.

    Raises
    ------
    InvalidParameter
        `root` is not a folder, or cannot be read.
    """
    root = Path(root)
    if not os.path.isdir(root):
        raise InvalidParameter(f"{root} is not a folder", "give a folder of pictures")
    try:
        return [path for path in _files(root) if path.suffix.lower() in _PICTURES]
    except OSError as error:
        place = error.filename or root
        raise InvalidParameter(f"{place} cannot be read: {error.strerror or error}") from error


def listed_pictures(file: Path) -> list[tuple[str, Path]]:
    """Return the (user_id, file) pairs of a CSV file with the header ``image,user_id``, in order.

    Paths are relative to the CSV file.  Ignores additional columns and empty lines.

    Raises
    ------
    InvalidParameter
        The file cannot be read or parsed; the message names the line.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [field.strip() for field in next(reader, [])]
            if not {"image", "user_id"} <= set(header):
                raise InvalidParameter(f"the first line of {file} must be image,user_id")
            image, user = header.index("image"), header.index("user_id")
            found = []
            for row in reader:
                if not any(field.strip() for field in row):
                    continue
                if len(row) != len(header):
                    raise InvalidParameter(
                        f"{file} line {reader.line_num} has {len(row)} of {len(header)} fields"
                    )
                found.append((row[user].strip(), file.parent / row[image].strip()))
    except UnicodeDecodeError as error:
        raise InvalidParameter(f"{file} is not UTF-8 text") from error
    except csv.Error as error:
        raise InvalidParameter(f"{file} cannot be read as CSV: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in a name
        if isinstance(error, InvalidParameter):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(f"{file} cannot be read: {reason}") from error
    return found


def listed_paths(file: Path) -> list[Path]:
    """Return the paths in a text file, one per line; relative ones start at its folder.

    Raises
    ------
    InvalidParameter
        The file cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidParameter(f"{file} is not UTF-8 text", "list one path in each line") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in a name
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(f"{file} cannot be read: {reason}") from error
    return [file.parent / line for line in lines if line.strip()]


def _files(folder: Path) -> list[Path]:
    found = []
    for here, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(here, name) for name in names if not name.startswith("."))
        found += [path for path in paths if _is_picture(path)]
    return sorted(found)


def _is_picture(path: Path) -> bool:
    """Whether a path is a file, or a link whose target is gone: reading it reports it."""
    return path.is_file() or not path.exists()


def _refuse(error: OSError) -> NoReturn:
    raise error
