"""Read the training crops, and hold out people for development and calibration.

The archives under ``$FACECORE_DATA/train`` hold aligned 128x128 crops whose central
112x112 is the ArcFace template.  This module reads no test data:

* no image of ``lfw/pairs.txt`` (the 6,000 test pairs) is in any archive;
* a tenth of every archive is held out, by a hash of the person if the name identifies one,
  else of the file: development people, and people for the calibration;
* LFW people who are in no test pair are left out too: the calibration is fitted on them.
"""

from __future__ import annotations

import hashlib
import os
import queue
import re
import tarfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from facecore.evaluation.readers import read_lfw_pairs

T = TypeVar("T")

# Archive -> pattern of its file names, with the person as its one group.  None: nearly every crop
# shows another person, and a file counts as a person.
ARCHIVES: dict[str, str | None] = {
    "celebrities": r"(\d+)_\d+",
    "utkface": None,
    "synthetic": r"(?:edited_)?(\d+)(?:_\w+)?",  # 50 people under edits, the others once
    "lfw_rest": r"(.+)_\d+",
    "utkface2": None,
    "allage": r"(\d+)A\d+",
    "dfdc": r"(?:real|fake)_(\w+)",
    "headshots": r"(.+)_\d+",
    "celeba_nomask": None,
    "selfies": None,
    "humanfaces": None,
    "mps": r"mp(\d+)_\w",
    "southasian": None,
    "ffhq_small": None,
}


def data_root() -> Path:
    """Folder of the reference data: ``$FACECORE_DATA`` or ``../shared``."""
    return Path(os.environ.get("FACECORE_DATA", Path(__file__).parents[2].parent / "shared"))


def tested_pictures(root: Path) -> set[str]:
    """Return the pictures of LFW's test pairs as ``Name/Name_0001.jpg``; no step may read them."""
    pairs = read_lfw_pairs(root / "lfw" / "pairs.txt")
    return {picture for pair in pairs for picture in pair[2:]}


def people(pictures: set[str]) -> set[str]:
    """The names in ``Name/Name_0001.jpg``."""
    return {picture.partition("/")[0] for picture in pictures}


def person_of(crop: str) -> str:
    """Return ``archive/person`` of a crop ``archive/file``; the crop if it names no person."""
    archive, name = crop.split("/", 1)
    pattern = ARCHIVES[archive]
    match = re.fullmatch(pattern, name) if pattern else None
    return f"{archive}/{match[1] if match else name}"


def held_out(person: str) -> bool:
    """Whether this person (`person_of`) is in the tenth that nothing is trained on."""
    return int(hashlib.sha256(person.encode()).hexdigest(), 16) % 10 == 0


def crops(
    root: Path, *, development: bool = False, archives: Iterable[str] = tuple(ARCHIVES)
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield ``(archive/name, 128x128x3 BGR crop)``; the held-out ones when `development`."""
    tested = people(tested_pictures(root))
    for archive in archives:
        (path,) = (root / "train").glob(f"{archive}.tar*")
        with tarfile.open(path) as tar:
            for member in tar:
                name = Path(member.name).stem
                if not member.name.endswith(".webp"):
                    continue
                if archive == "lfw_rest" and name.rsplit("_", 1)[0] not in tested:
                    continue
                if held_out(person_of(f"{archive}/{name}")) != development:
                    continue
                if (handle := tar.extractfile(member)) is None:
                    continue
                image = cv2.imdecode(np.frombuffer(handle.read(), np.uint8), cv2.IMREAD_COLOR)
                if image is not None and image.shape == (128, 128, 3):
                    yield f"{archive}/{name}", np.asarray(image, np.uint8)


def photographs(root: Path, *, calibration: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield ``(person, path)`` of the whole LFW pictures that no test pair uses.

    People who occur in a pair (in another picture) are for training.  People who occur in
    none are for the calibration, liveness and the gate; no embedder or detector is trained on
    them.
    """
    pictures = tested_pictures(root)
    tested = people(pictures)
    for path in sorted((root / "lfw" / "images").glob("*/*.jpg")):
        person = path.parent.name
        if f"{person}/{path.name}" not in pictures and (person not in tested) == calibration:
            yield person, path


def ahead(batches: Iterator[T], most: int = 4) -> Iterator[T]:
    """Yield `batches`, drawn by a worker thread up to `most` ahead; raise the thread's error."""
    box: queue.Queue[T | Exception] = queue.Queue(maxsize=most)

    def work() -> None:
        try:
            for batch in batches:
                box.put(batch)
        except Exception as error:
            box.put(error)

    threading.Thread(target=work, daemon=True).start()
    while True:
        batch = box.get()
        if isinstance(batch, Exception):
            raise batch
        yield batch


def utkface_part(name: str) -> str:
    """Return the part of a UTKFace crop, by a hash of its name, for networks that learn its labels.

    Nearly every crop shows another person, so parts by name are parts by person.
    """
    bucket = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    return "test" if bucket < 2 else "development" if bucket == 2 else "train"


def utkface(root: Path, which: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Crops (N, 128, 128, 3) BGR of one part, and (N, 3) labels: age, gender (1 female), race."""
    images, labels = [], []
    with tarfile.open(root / "train" / "utkface.tar") as tar:
        for member in tar:
            name = Path(member.name).stem
            fields = name.split("_")[:3]
            if utkface_part(name) != which or not all(field.isdigit() for field in fields):
                continue
            if (handle := tar.extractfile(member)) is None:
                continue
            image = cv2.imdecode(np.frombuffer(handle.read(), np.uint8), cv2.IMREAD_COLOR)
            if image is not None and int(fields[1]) < 2:
                images.append(np.asarray(image, np.uint8))
                labels.append([int(field) for field in fields])
    return np.stack(images), np.array(labels, np.int64)
