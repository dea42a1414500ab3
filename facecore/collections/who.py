"""Name the faces of a photo from a folder of known people."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facecore.collections.faces import FoundFace, Unreadable, read_faces
from facecore.collections.folder import read_boxes
from facecore.collections.vector_cache import VectorCache
from facecore.engine import FaceEngine
from facecore.errors import InvalidParameter
from facecore.face.detection import Face, overlap
from facecore.gallery.thresholds import check_far, score_threshold
from facecore.images import ImageInput
from facecore.images.folders import pictures_of_people
from facecore.matching.grouping import assign

__all__ = ["KnownFaces", "NamedFace", "Who", "known_people", "read_known", "who"]

_LINK = re.compile(r"_([0-9a-f]{8})_([0-9]+)$")  # `FoundFace.link_ending`
_SAME_FACE = 0.3  # least intersection over union of two detectors' boxes of one face


@dataclass(frozen=True, slots=True)
class KnownFaces:
    """Result of `read_known`.

    Attributes
    ----------
    faces : tuple of (str, FoundFace)
        Name and face, one for each picture that shows a usable face.
    crowded : tuple of Path
        Pictures with several faces, of which the largest is used.
    refused : tuple of Unreadable
        Pictures without a usable face, and links whose picture is gone.
    """

    faces: tuple[tuple[str, FoundFace], ...]
    crowded: tuple[Path, ...]
    refused: tuple[Unreadable, ...]


@dataclass(frozen=True, slots=True)
class NamedFace:
    """A face of the photo, with its name if known.

    Attributes
    ----------
    face : Face
    name : str or None
        None for a stranger.
    score : float
        0..100, against `picture`.
    similarity : float
        Cosine, -1..1, against `picture`.
    picture : Path
        The most similar picture of that person; for a stranger, of all known people.
    """

    face: Face
    name: str | None
    score: float
    similarity: float
    picture: Path


@dataclass(frozen=True, slots=True)
class Who:
    """Result of `who`.

    Attributes
    ----------
    faces : tuple of NamedFace
        Largest first.
    threshold : float
        Lowest score at which a face gets a name.
    people, pictures : int
        Number of known people, and of their pictures with a face.
    crowded : tuple of Path
        Known pictures with several faces, of which the largest is used.
    refused : tuple of Unreadable
        As in `KnownFaces`.
    """

    faces: tuple[NamedFace, ...]
    threshold: float
    people: int
    pictures: int
    crowded: tuple[Path, ...]
    refused: tuple[Unreadable, ...]


def known_people(root: Path | str) -> list[tuple[str, Path]]:
    """List (name, picture) below a folder: a folder per person, or files named after people.

    A number at the end of a file name is not part of the person's name: ``eileen.jpg``,
    ``eileen_2.jpg`` and ``eileen (3).jpg`` are all ``eileen``.

    Raises
    ------
    InvalidParameter
        `root` is not a folder, cannot be read, or holds no picture.
    """
    people = [
        (re.sub(r"[\s_.-]*(\(\d+\)|\d+)$", "", path.stem) or path.stem if name is None else name,
         path)
        for name, path in pictures_of_people(root)
    ]  # fmt: skip
    if not people:
        raise InvalidParameter(
            f"{root} holds no picture", "give a folder per person, or files such as eileen.jpg"
        )
    return people


def read_known(
    engine: FaceEngine,
    root: Path | str,
    cache: VectorCache | None = None,
    *,
    progress: bool = False,
) -> KnownFaces:
    """Read one face of each picture of `known_people`.

    Takes the largest face.  For a link of ``facecore cluster``, takes the face that ``people.json``
    in `root` describes; its number differs between packs and between values of
    `min_recognizability`.

    Raises
    ------
    InvalidParameter
        As in `known_people`, or no picture shows a usable face.
    """
    people = known_people(root)
    faces: list[tuple[str, FoundFace]] = []
    crowded: list[Path] = []
    refused: list[Unreadable] = []
    boxes = read_boxes(Path(root))
    pictures = read_faces(engine, [path for _, path in people], cache, progress=progress)
    for (name, path), picture in zip(people, pictures, strict=True):
        if picture.error is not None:
            refused.append(Unreadable(path, picture.error.code, str(picture.error)))
            continue
        link = _LINK.search(path.stem)
        number = int(link[2]) if link and picture.sha256.startswith(link[1]) else -1
        box = boxes.get((picture.sha256, number))
        if box is None:
            faces.append((name, picture.faces[0]))
            if len(picture.faces) > 1 or number > 0:
                crowded.append(path)
        elif (face := _face_at(box, picture.faces)) is not None:
            faces.append((name, face))
        else:
            message = "the face that was grouped cannot be recognised"
            refused.append(Unreadable(path, "NoFaceDetected", message))
    if not faces:
        first = refused[0]
        raise InvalidParameter(
            f"no picture in {root} shows a face that can be recognised",
            f"give a clear picture of each person; {first.path}: {first.message}",
        )
    return KnownFaces(tuple(faces), tuple(crowded), tuple(refused))


def _face_at(box: NDArray[np.float32], faces: Iterable[FoundFace]) -> FoundFace | None:
    """Return the face whose box overlaps `box` best, if it is the same face."""
    with np.errstate(all="ignore"):  # the file may hold any numbers; NaN is no overlap
        best = max(faces, key=lambda face: overlap(face.face.box, box))
        return best if overlap(best.face.box, box) >= _SAME_FACE else None


def who(
    engine: FaceEngine,
    photo: ImageInput,
    known: Path | str,
    cache: VectorCache | None = None,
    *,
    far: float = 0.01,
    once: bool = True,
    progress: bool = False,
) -> Who:
    """Name the faces of a photo.

    Parameters
    ----------
    engine : FaceEngine
    photo : image
        As in `facecore.FaceEngine.detect`.
    known : Path or str
        As in `known_people`.
    cache : VectorCache, optional
        Keeps the vectors of the known pictures for the next call.
    far : float, default 0.01
        Probability that a stranger's face gets a name.  Together with the number of known
        pictures, it determines the threshold.
    once : bool, default True
        Whether a person gets at most one face of the photo.
    progress : bool, default False
        Show a progress bar on standard error.

    Raises
    ------
    UnreadableImage, ImageTooLarge
        The photo cannot be read.
    InvalidParameter
        `known` is not a folder of people, none of its pictures shows a face, or `far` is
        invalid.
    NotCalibrated
        The pack has no calibration, so no face can get a name.
    """
    check_far(far)
    _ = engine.threshold  # raises NotCalibrated before the known pictures are embedded
    found = engine.samples(photo)
    read = read_known(engine, known, cache, progress=progress)
    templates = read.faces
    threshold = score_threshold(engine.calibration, far, len(templates))
    numbers: dict[str, int] = {}
    owners = np.array([numbers.setdefault(name, len(numbers)) for name, _ in templates])
    names = list(numbers)
    matrix = np.stack([face.vector for _, face in templates])
    probes = np.reshape([engine.embed(sample) for sample in found], (-1, matrix.shape[1]))
    similarity = probes @ matrix.T
    best = np.stack([similarity[:, owners == p].max(axis=1) for p in range(len(names))], axis=1)
    least = float(engine.calibration.similarity(threshold))
    named = []
    for i, person in enumerate(assign(best, least, once=once)):
        among = similarity[i] if person is None else np.where(owners == person, similarity[i], -2)
        nearest = int(np.argmax(among))
        value = float(np.clip(among[nearest], -1, 1))
        named.append(
            NamedFace(
                found[i].face,
                None if person is None else names[person],
                float(engine.calibration.score(value)),
                value,
                templates[nearest][1].path,
            )
        )
    return Who(tuple(named), threshold, len(names), len(templates), read.crowded, read.refused)
