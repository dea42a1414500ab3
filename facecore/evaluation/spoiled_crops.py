"""Crops of spoiled pictures, on which `facecore.evaluation.recognizability` fits the gate.

Pictures of a few people from one source form a group and are spoiled in the same way.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facecore.engine import FaceEngine
from facecore.errors import FacecoreError, InvalidParameter
from facecore.evaluation.spoiling import Spoiling, draw, kind_of
from facecore.face.alignment import align
from facecore.face.detection import Face
from facecore.face.sample import FaceSample
from facecore.images import load

__all__ = ["ALIKE", "ORIGINAL", "SpoiledCrops", "collect", "spoiled_alike"]

ORIGINAL = "as they are"
ALIKE = 24  # pictures per group
_LEAST_PEOPLE = 100


@dataclass(frozen=True, slots=True, eq=False)
class SpoiledCrops:
    """Aligned crops of original and spoiled pictures.

    Attributes
    ----------
    crops : ndarray, shape (N, 112, 112, 3), uint8, BGR
    person : ndarray, shape (N,), str
    picture : ndarray, shape (N,), int
        Copies of one picture share a number.
    kind : ndarray, shape (N,), str
        `ORIGINAL`, a main defect (`facecore.evaluation.spoiling.kind_of`), or a name of its `ROWS`.
    group : ndarray, shape (N,), int
        Crops of one group come from one source and are spoiled in the same way.
    held_out : ndarray, shape (N,), bool
        Held-out people set the limit; nothing is fitted on them.
    """

    crops: NDArray[np.uint8]
    person: NDArray[np.str_]
    picture: NDArray[np.int64]
    kind: NDArray[np.str_]
    group: NDArray[np.int64]
    held_out: NDArray[np.bool_]


def spoiled_alike(
    some: Sequence[tuple[NDArray[np.uint8], Face]], rng: np.random.Generator
) -> tuple[str, list[NDArray[np.uint8]]]:
    """Spoil pictures in one random way; return the kind and the aligned crops.

    Instead of running the detector on the spoiled pictures, which would take longer than all other
    steps, move the original's landmarks as a detector moves them on a poor picture.
    """
    spoiling = draw(rng)
    forced = bool(spoiling.turn) and rng.random() < 0.3  # else the library finds the turned face
    upright, crops = replace(spoiling, turn=0), []
    for picture, face in some:
        points = _moved(face, spoiling, rng)
        if forced:
            points = _turned(points, face, 90.0 * spoiling.turn)
        spoilt = upright.apply(picture, face, seed=int(rng.integers(2**31)))
        crops.append(align(spoilt, points))
    return kind_of(spoiling if forced else upright), crops


def _moved(face: Face, spoiling: Spoiling, rng: np.random.Generator) -> NDArray[np.float64]:
    """Move the landmarks as a detector might on the spoiled picture."""
    points = face.landmarks.astype(np.float64)
    middle = points.mean(axis=0)
    harmed = (spoiling.line, spoiling.blur, spoiling.face_pixels, spoiling.gain < 0.3)
    poor = 1.0 if any(harmed) or spoiling.cover else 0.4
    points = _turned(points, face, float(rng.normal(0, 4) * poor))
    points = (points - middle) * float(np.exp(rng.normal(0, 0.04) * poor)) + middle
    points += rng.normal(0, 0.02, 2) * poor * face.size
    points += rng.normal(0, 0.012, (5, 2)) * poor * face.size
    found = not spoiling.tilt or rng.random() < 0.7
    return _turned(points, face, spoiling.tilt) if found else points


def _turned(points: NDArray[np.float64], face: Face, degrees: float) -> NDArray[np.float64]:
    """Turn landmarks clockwise around the centre of the face's box."""
    centre = face.box.reshape(2, 2).mean(axis=0)
    z = ((points - centre) @ np.array([1, 1j])) * np.exp(1j * np.radians(degrees))
    return np.asarray(np.stack([z.real, z.imag], axis=1) + centre, np.float64)


def collect(
    engine: FaceEngine, pictures: Iterable[tuple[str | None, Path]], copies: int = 3
) -> SpoiledCrops:
    """Spoil pictures of people, and hold out a quarter of the people, chosen by a hash.

    Raises
    ------
    InvalidParameter
        Fewer than 100 people have a picture with a face.
    """
    rng, kept, groups = np.random.default_rng(1), [], itertools.count()

    def spoil(some: list[tuple[str, int, NDArray[np.uint8], FaceSample]], aside: bool) -> None:
        shown = [(picture, sample.face) for _, _, picture, sample in some]
        made = [(ORIGINAL, [sample.crop for *_, sample in some])]
        made += [spoiled_alike(shown, rng) for _ in range(copies)]
        for kind, crops in made:
            group = next(groups)
            for crop, (person, number, *_) in zip(crops, some, strict=True):
                kept.append((crop, person, number, kind, group, aside))
        some.clear()

    waiting: dict[bool, list[tuple[str, int, NDArray[np.uint8], FaceSample]]] = {}
    found = [(person, path) for person, path in pictures if person is not None]
    for number, at in enumerate(rng.permutation(len(found))):
        person, path = found[at]
        try:
            picture = load(path)
            sample = engine.sample(picture)
        except FacecoreError:
            continue
        name = person.encode("utf-8", "surrogatepass")  # a folder's name may be any bytes
        aside = int(hashlib.sha256(name).hexdigest(), 16) % 4 == 0
        some = waiting.setdefault(aside, [])
        some.append((person, number, picture, sample))
        if len(some) == ALIKE:
            spoil(some, aside)
    for aside, some in waiting.items():
        spoil(some, aside)
    people = len({row[1] for row in kept})
    if people < _LEAST_PEOPLE:
        raise InvalidParameter(
            f"{people} people have a picture with a face, {_LEAST_PEOPLE} are needed",
            "add people to the folder",
        )
    columns = [np.array(column) for column in zip(*kept, strict=True)]
    return SpoiledCrops(*columns)
