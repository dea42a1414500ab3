"""Read the labels of test pictures: pairs files, folders of people, and groups of pictures."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from facecore.errors import InvalidParameter
from facecore.images.folders import pictures_of_people

__all__ = ["read_folder", "read_labels", "read_lfw_pairs", "read_pairs", "utkface_labels"]

Labels = dict[str, dict[str, str]]

_GENUINE = {"1", "true", "same", "genuine"}
_IMPOSTOR = {"0", "-1", "false", "different", "impostor"}


def read_lfw_pairs(path: Path) -> list[tuple[int, bool, str, str]]:
    """Parse LFW's ``pairs.txt`` into (fold, same, first, second), as ``Name/Name_0001.jpg``."""
    text = _read(path)
    try:
        lines = text.splitlines()
        folds, size = (int(field) for field in lines[0].split())
        if min(folds, size) < 1:
            raise ValueError(f"{folds} folds of {size} pairs")
        pairs = []
        for number, line in enumerate(line for line in lines[1:] if line.strip()):
            fields, fold = line.split(), number // (2 * size)
            same = number % (2 * size) < size  # each fold lists genuine pairs first
            if len(fields) != (3 if same else 4) or not set(line).isdisjoint("/\\"):
                raise ValueError(f"pair {number + 1} is {line.strip()!r:.80}")
            a, i = fields[0], int(fields[1])
            b, j = (a, int(fields[2])) if same else (fields[2], int(fields[3]))
            names = f"{a}/{a}_{i:04d}.jpg", f"{b}/{b}_{j:04d}.jpg"
            pairs.append((fold, same, *names))
    except (ValueError, IndexError) as error:
        raise InvalidParameter(f"{path} is not a pairs file of LFW: {error!s:.200}") from error
    if len(pairs) != (announced := 2 * folds * size):
        raise InvalidParameter(f"{path} holds {len(pairs)} pairs, its first line says {announced}")
    return pairs


def read_pairs(path: Path) -> list[tuple[Path, Path, bool]]:
    """Read lines of ``a,b,label``: two pictures, and whether they show the same person.

    Fields are separated by commas (quoted as in CSV) or, in a file without commas, by blanks.
    Paths are relative to the file.  Labels are 1, same, genuine or true, and 0, -1, different,
    impostor or false.  Empty lines, lines that start with ``#``, and a first line that ends in
    ``label`` are skipped.
    """
    text = _read(path)
    delimiter = "," if "," in text else "\t" if "\t" in text else " "
    pairs = []
    for number, row in enumerate(_rows(path, text, delimiter), start=1):
        fields = [field.strip() for field in row if delimiter == "," or field.strip()]
        heading = number == 1 and fields and fields[-1].lower() == "label"
        if not any(fields) or fields[0].startswith("#") or heading:
            continue
        label = fields[-1].lower()
        if len(fields) != 3 or not all(fields) or label not in _GENUINE | _IMPOSTOR:
            raise InvalidParameter(
                f"{path} line {number} is {delimiter.join(row)!r:.80}",
                "each line is a,b,label with the label 1 (same person) or 0",
            )
        pairs.append((path.parent / fields[0], path.parent / fields[1], label in _GENUINE))
    if not pairs:
        raise InvalidParameter(f"{path} holds no pairs", "each line is a,b,label")
    return pairs


def read_folder(root: Path) -> list[tuple[str, str]]:
    """List all pictures below a folder as (name, person), sorted by name.

    See `facecore.images.folders.pictures_of_people`.  Names are relative to `root`, with ``/``;
    each picture directly in `root` counts as another person.
    """
    found = []
    for person, path in pictures_of_people(root):
        name = path.relative_to(root).as_posix()
        found.append((name, name if person is None else person))
    if len(found) < 2:
        raise InvalidParameter(
            f"{root} holds {len(found)} pictures", "give a folder with a folder for each person"
        )
    return sorted(found)


def read_labels(path: Path, names: Sequence[str]) -> tuple[Labels, list[str]]:
    """Read groups of pictures from a CSV file: ``image,group``, or more columns after ``image``.

    Parameters
    ----------
    path : Path
        The first line names the columns; each column after ``image`` is a separate grouping.
        An empty cell excludes the picture from that grouping.
    names : sequence of str
        Names of the measured pictures, as in the first column.

    Returns
    -------
    labels : dict
        Column -> picture -> group.
    notes : list of str
        Mismatches between the file and the pictures.
    """
    rows = _rows(path, _read(path))
    header = [field.strip() for field in rows[0]] if rows else []
    if len(header) < 2 or header[0] != "image" or len(set(header)) != len(header):
        raise InvalidParameter(f"the first line of {path} must be image,group")
    labels: Labels = {column: {} for column in header[1:]}
    wanted, unknown = set(names), 0
    for number, row in enumerate(rows[1:], start=2):
        if not any(field.strip() for field in row):
            continue
        if len(row) != len(header):
            raise InvalidParameter(f"{path} line {number} has {len(row)} of {len(header)} fields")
        if row[0] not in wanted:
            unknown += 1
            continue
        for column, group in zip(header[1:], row[1:], strict=True):
            if group.strip():
                labels[column][row[0]] = group.strip()
    if not any(labels.values()):
        raise InvalidParameter(f"{path} labels none of the {len(names)} pictures")
    return labels, _label_notes(labels, len(wanted), unknown, path.name)


def utkface_labels(names: Sequence[str]) -> tuple[Labels, list[str]]:
    """Parse groups from file names ``AGE_GENDER_RACE_*``, with the codes of UTKFace.

    References
    ----------
    .. [1] Z. Zhang, Y. Song and H. Qi, "Age progression/regression by conditional adversarial
           autoencoder", CVPR 2017, doi:10.1109/CVPR.2017.463
    """
    labels: Labels = {"age": {}, "gender": {}, "race": {}}
    for name in names:
        match = _UTKFACE.match(name.rpartition("/")[2])
        if match is None:
            continue
        age = int(match["age"])
        labels["age"][name] = next(text for last, text in _AGES if age <= last)
        labels["gender"][name] = _GENDERS[int(match["gender"])]
        if match["race"]:
            labels["race"][name] = _RACES[int(match["race"])]
    if not labels["age"]:
        raise InvalidParameter("no picture is named AGE_GENDER_RACE_*")
    return labels, _label_notes(labels, len(names), 0, "the names")


_UTKFACE = re.compile(r"(?P<age>\d{1,3})_(?P<gender>[01])_(?:(?P<race>[0-4])_)?\d{6,}")
_AGES = [(12, "0-12"), (17, "13-17"), (29, "18-29"), (44, "30-44"), (59, "45-59"), (999, "60+")]
_GENDERS = ["male", "female"]
_RACES = ["White", "Black", "Asian", "Indian", "other"]


def _label_notes(
    labels: Mapping[str, Mapping[str, str]], all_: int, unknown: int, source: str
) -> list[str]:
    notes = [
        f"{source}: {all_ - len(groups):,} of {all_:,} pictures have no {column}"
        for column, groups in labels.items()
        if len(groups) < all_
    ]
    if unknown:
        notes.append(f"{source}: {unknown:,} lines name pictures that are not measured")
    return notes


def _rows(path: Path, text: str, delimiter: str = ",") -> list[list[str]]:
    try:
        return list(csv.reader(text.splitlines(), delimiter=delimiter))
    except csv.Error as error:
        raise InvalidParameter(f"{path} cannot be read as CSV: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidParameter(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise InvalidParameter(f"{path} cannot be read: {error.strerror}") from error
