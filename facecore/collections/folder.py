"""Write clusters as a folder of links, with CSV and JSON files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore._utils.atomic_files import absolute, make_folder, staged
from facecore._utils.csv_text import csv_bytes
from facecore.collections.clusters import Clusters
from facecore.collections.faces import FoundFace
from facecore.errors import InvalidParameter

__all__ = ["as_dict", "check_absent", "face_fields", "read_boxes", "write_people"]


def face_fields(face: FoundFace) -> dict[str, Any]:
    """Convert a face to JSON-serialisable values, without its vector."""
    return {
        "picture": str(face.path),
        "sha256": face.sha256,
        "face": face.number,
        "box": [round(float(v), 2) for v in face.face.box],
        "confidence": round(face.face.confidence, 4),
    }


def as_dict(clusters: Clusters) -> dict[str, Any]:
    """Convert people and doubts to JSON-serialisable values."""
    return {
        "threshold": round(clusters.threshold, 4),
        "people": [
            {"name": p.name, "known": p.known, "faces": [face_fields(face) for face in p.faces]}
            for p in clusters.people
        ],
        "doubts": [
            {
                "first": face_fields(doubt.first),
                "second": face_fields(doubt.second),
                "score": round(doubt.score, 4),
                "joined": doubt.joined,
            }
            for doubt in clusters.doubts
        ],
    }


def write_people(clusters: Clusters, out: Path | str) -> None:
    """Write a folder per person with links to the pictures, ``people.csv`` and ``people.json``.

    Pictures are copied if the system refuses symbolic links.

    Parameters
    ----------
    clusters : Clusters
    out : Path or str
        Must not exist; created atomically.

    Raises
    ------
    InvalidParameter
        `out` exists or cannot be written.
    """
    out = Path(out)
    check_absent(out)
    try:
        with staged(out) as folder:
            real = out.resolve()  # the system follows ".." from there, not from a link
            for person in clusters.people:
                home = folder / person.name
                home.mkdir()
                for face in person.faces:
                    _link(face, home, real / person.name)
            rows = (
                (p.name, str(f.path), f.number, *(round(float(v), 2) for v in f.face.box))
                for p in clusters.people
                for f in p.faces
            )
            header = ("person", "picture", "face", "x1", "y1", "x2", "y2")
            (folder / "people.csv").write_bytes(csv_bytes(header, rows))
            (folder / "people.json").write_text(json.dumps(as_dict(clusters)), encoding="utf-8")
            folder.rename(out)  # fails if another run has filled `out` since
    except OSError as error:
        raise InvalidParameter(
            f"{out} cannot be written: {error.strerror or error}", "name another folder"
        ) from error


def read_boxes(folder: Path) -> dict[tuple[str, int], NDArray[np.float32]]:
    """Read the boxes in the ``people.json`` of `write_people`, by SHA-256 and number of the face.

    Empty without such a file, or if another program wrote it.
    """
    try:
        people = json.loads((folder / "people.json").read_bytes())["people"]
        with np.errstate(all="ignore"):  # another program may write numbers beyond float32
            boxes = {
                (face["sha256"], face["face"]): np.array(face["box"], np.float32)
                for person in people
                for face in person["faces"]
            }
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return {}
    return {key: box for key, box in boxes.items() if box.shape == (4,)}


def check_absent(out: Path) -> None:
    """Check, before a long computation, that a folder can be created."""
    if os.path.lexists(out):
        raise InvalidParameter(f"{out} exists", "name a folder that does not exist yet")
    make_folder(absolute(out).parent)


def _link(face: FoundFace, folder: Path, final: Path) -> None:
    # A person may appear twice in a picture, and two pictures may have the same name.
    name = f"{face.path.stem[:50]}{face.link_ending}{face.path.suffix}"  # at most 255 bytes
    if (folder / name).is_symlink() or (folder / name).exists():
        return  # duplicate of a linked file
    picture = face.path.parent.resolve() / face.path.name
    try:
        (folder / name).symlink_to(os.path.relpath(picture, final))
    except (OSError, ValueError, NotImplementedError):  # no links here, or on another drive
        shutil.copyfile(picture, folder / name)
