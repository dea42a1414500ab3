"""Who is on a photo, among the people of a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facecore.collections.faces import FoundFace, Unreadable, read_faces
from facecore.collections.vector_cache import VectorCache
from facecore.engine import FaceEngine
from facecore.errors import InvalidParameter
from facecore.face.detection import Face
from facecore.gallery.thresholds import check_far, score_threshold
from facecore.images import ImageInput
from facecore.images.folders import pictures_of_people
from facecore.matching.grouping import assign

__all__ = ["NamedFace", "Who", "known_people", "who"]


@dataclass(frozen=True, slots=True)
class NamedFace:
    """One face of the photo.

    Attributes
    ----------
    face : Face
    name : str or None
        None for a stranger.
    score : float
        0..100, with the picture of that person, or of anybody, that is most like it.
    similarity : float
        Cosine, -1..1.
    picture : Path
        That picture.
    """

    face: Face
    name: str | None
    score: float
    similarity: float
    picture: Path


@dataclass(frozen=True, slots=True)
class Who:
    """The answer of `who`.

    Attributes
    ----------
    faces : tuple of NamedFace
        Largest first.
    threshold : float
        Score from which a face gets a name.
    people, pictures : int
        Known people, and their pictures that have a face.
    crowded : tuple of Path
        Known pictures with several faces: the largest one counts.
    refused : tuple of Unreadable
        Known pictures without a face to use.
    """

    faces: tuple[NamedFace, ...]
    threshold: float
    people: int
    pictures: int
    crowded: tuple[Path, ...]
    refused: tuple[Unreadable, ...]


def known_people(root: Path) -> list[tuple[str, Path]]:
    """All (name, picture) below a folder: a folder per person, or files named after people.

    A number at the end of a file's name does not belong to the person's: ``eileen.jpg``,
    ``eileen_2.jpg`` and ``eileen (3).jpg`` are all ``eileen``.

    Raises
    ------
    InvalidParameter
        It is no folder, cannot be read, or holds no picture.
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


def who(
    engine: FaceEngine,
    photo: ImageInput,
    known: Path,
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
    known : Path
        As in `known_people`.
    cache : VectorCache, optional
        Keeps the vectors of the known pictures for the next call.
    far : float, default 0.01
        The chance that a stranger's face gets a name; the threshold follows from it and the
        number of known pictures.
    once : bool, default True
        Whether a person can be on the photo only once.
    progress : bool, default False
        Show a bar on standard error.

    Raises
    ------
    UnreadableImage, ImageTooLarge
        The photo cannot be read.
    InvalidParameter
        `known` is no folder of people, none of its pictures shows a face, or `far` makes no
        sense.
    """
    check_far(far)
    found = engine.samples(photo)
    people = known_people(known)
    templates: list[tuple[str, FoundFace]] = []
    crowded: list[Path] = []
    refused: list[Unreadable] = []
    pictures = read_faces(engine, [path for _, path in people], cache, progress=progress)
    for (name, path), picture in zip(people, pictures, strict=True):
        if picture.faces:
            templates.append((name, picture.faces[0]))
        else:
            code = "NoFaceDetected" if picture.error is None else picture.error.code
            refused.append(Unreadable(path, code, str(picture.error or "no face was found")))
        if len(picture.faces) > 1:
            crowded.append(path)
    if not templates:
        raise InvalidParameter(f"no picture in {known} shows a face", str(refused[0].message))
    threshold = score_threshold(engine.calibration, far, len(templates))
    names = list(dict.fromkeys(name for name, _ in templates))
    owners = np.array([names.index(name) for name, _ in templates])
    matrix = np.stack([face.vector for _, face in templates])
    probes = np.stack([engine.embed(sample) for sample in found] or [np.empty_like(matrix[0])])
    similarity = (probes @ matrix.T)[: len(found)]
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
    return Who(tuple(named), threshold, len(names), len(templates), tuple(crowded), tuple(refused))
