"""Read and embed the faces of many pictures, each picture once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import length_hint
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facecore import images
from facecore.collections.vector_cache import CachedFace, VectorCache
from facecore.engine import FaceEngine
from facecore.errors import FacecoreError, InvalidParameter, NoFaceDetected
from facecore.face.detection import Face
from facecore.images.folders import pictures_below

__all__ = ["SMALLEST", "FoundFace", "PictureFaces", "Unreadable", "read_faces", "read_folder"]

SMALLEST = 48.0  # pixels, smallest usable face
_WINDOW = 128  # pictures per cache transaction


@dataclass(frozen=True, slots=True, eq=False)
class FoundFace:
    """A face in a picture of a collection.

    Attributes
    ----------
    path : Path
    sha256 : str
        SHA-256 of the picture's file.
    number : int
        Index by size; 0 is the largest face of the picture.
    face : Face
    vector : ndarray, shape (D,), float32
        Of unit length.
    quality : float or None
        0..100; None if it was not measured.
    """

    path: Path
    sha256: str
    number: int
    face: Face
    vector: NDArray[np.float32] = field(repr=False)
    quality: float | None = None

    @property
    def link_ending(self) -> str:
        """Suffix of a link's name that identifies the face in the picture."""
        return f"_{self.sha256[:8]}_{self.number}"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A picture without usable faces, with the code and message of the error."""

    path: Path
    code: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class PictureFaces:
    """All faces of a picture that can be recognised, largest first, or the error."""

    path: Path
    sha256: str
    faces: tuple[FoundFace, ...]
    error: FacecoreError | None = None


def read_faces(
    engine: FaceEngine,
    paths: Iterable[Path | str],
    cache: VectorCache | None = None,
    *,
    quality: bool = False,
    progress: bool = False,
) -> Iterator[PictureFaces]:
    """Yield the faces of each picture, in order; an unreadable picture does not stop the run.

    Parameters
    ----------
    engine : FaceEngine
    paths : iterable of Path or str
    cache : VectorCache, optional
        Supplies the faces of cached pictures and stores the others; an interrupted run loses at
        most 128 pictures.
    quality : bool, default False
        Measure the quality of each face.  This skips reading the cache, which holds no quality.
    progress : bool, default False
        Show a progress bar on standard error.
    """
    from tqdm import tqdm

    total = length_hint(paths) or None
    remaining = map(Path, paths)
    with tqdm(total=total, unit="image", desc="embedding", disable=not progress) as bar:
        while window := list(islice(remaining, _WINDOW)):
            for answer in _window(engine, window, cache, quality):
                bar.update()
                yield answer


def read_folder(
    engine: FaceEngine,
    root: Path | str,
    cache: VectorCache | None = None,
    *,
    all_faces: bool = True,
    smallest: float = SMALLEST,
    progress: bool = False,
) -> tuple[list[FoundFace], list[Unreadable]]:
    """Read the faces of all pictures below a folder, at any depth, and list pictures without any.

    Small background faces are skipped: blur makes different people look alike.

    Parameters
    ----------
    engine, cache, progress
        As in `read_faces`.
    root : Path or str
    all_faces : bool, default True
        Whether to return every face, or only the largest of each picture.
    smallest : float, default 48
        Smallest face to return, in pixels (`Face.size`).

    Raises
    ------
    InvalidParameter
        `root` is not a folder, or holds no picture.
    """
    paths = pictures_below(root)
    if not paths:
        raise InvalidParameter(f"{root} holds no picture", "give a folder of JPEG or PNG files")
    found: list[FoundFace] = []
    refused: list[Unreadable] = []
    for picture in read_faces(engine, paths, cache, progress=progress):
        large = [face for face in picture.faces if face.face.size >= smallest]
        if picture.error is not None:
            refused.append(Unreadable(picture.path, picture.error.code, str(picture.error)))
        elif not large:
            size = picture.faces[0].face.size
            message = f"the largest face measures {size:.0f} pixels, {smallest:g} are needed"
            refused.append(Unreadable(picture.path, "FaceTooSmall", message))
        found += large if all_faces else large[:1]
    return found, refused


def _window(
    engine: FaceEngine, paths: Sequence[Path], cache: VectorCache | None, quality: bool
) -> Iterator[PictureFaces]:
    errors: dict[Path, FacecoreError] = {}
    digests: dict[Path, bytes] = {}
    for path in paths:
        try:
            digests[path] = hashlib.sha256(images.read_bytes(path, engine.limits)).digest()
        except FacecoreError as error:
            errors[path] = error.with_traceback(None)
    known: dict[bytes, list[CachedFace]] = {}
    if cache is not None and digests and not quality:
        known = cache.get(list(digests.values()))
    new = {digest: path for path, digest in digests.items() if digest not in known}
    made: dict[bytes, list[CachedFace]] = {}
    scores: dict[bytes, list[float]] = {}
    failed: dict[bytes, FacecoreError] = {}
    for digest, samples in zip(new, engine.samples_many(new.values()), strict=True):
        if isinstance(samples, FacecoreError):
            failed[digest] = samples
            continue
        try:
            if quality:
                scores[digest] = [engine.quality(sample).score for sample in samples]
        except FacecoreError as error:  # quality may decode the picture at a finer scale, and fail
            failed[digest] = error.with_traceback(None)
            continue
        made[digest] = [(sample.face, engine.embed(sample)) for sample in samples]
    if cache is not None and made:
        cache.put(made)
    known |= made
    for path in paths:
        if path in errors:
            yield PictureFaces(path, "", (), errors[path])
            continue
        digest = digests[path]
        name = digest.hex()
        faces = tuple(
            FoundFace(path, name, number, face, vector, scores[digest][number] if quality else None)
            for number, (face, vector) in enumerate(known.get(digest, ()))
        )
        problem = failed.get(digest)
        if problem is None and not faces:
            problem = NoFaceDetected("no face that can be recognised was found")
        yield PictureFaces(path, name, faces, problem)
