"""Bulk import of pictures into a group, resumable after an interruption."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from facecore import images
from facecore._utils.atomic_files import check_writable, write_whole
from facecore._utils.csv_text import csv_bytes
from facecore.errors import FacecoreError, InvalidParameter
from facecore.gallery.records import check_user_id
from facecore.images.folders import listed_pictures, pictures_of_people

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facecore.gallery.gallery import Gallery
    from facecore.pipeline import IfMany

__all__ = ["ImportResult", "RejectedImage", "face_id_of", "import_pictures"]

# Faces per transaction: one disk sync per half second of work or so.
_COMMIT = 128
# `batch_size` of `embed_many`: keeps its workers busy while this thread waits for the disk.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class RejectedImage:
    """A picture that was not imported, and the reason.

    Attributes
    ----------
    image : str
        Path relative to the folder, or to the CSV file that lists it.
    user_id : str
        Empty if the picture is in no person's folder.
    code, message : str
        Code and message of the error.
    """

    image: str
    user_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ImportResult:
    """Result of `import_pictures`.

    Attributes
    ----------
    images : int
        Number of pictures found.
    added : int
        Faces added to the group.
    present : int
        Pictures whose face was already in the group.
    refusals : tuple of RejectedImage
        The remaining pictures, in order.
    seconds : float
        Wall time.
    """

    images: int
    added: int
    present: int
    refusals: tuple[RejectedImage, ...] = field(repr=False)
    seconds: float

    def refused(self) -> dict[str, int]:
        """Count the refused pictures by error code."""
        return dict(sorted(Counter(refusal.code for refusal in self.refusals).items()))

    def as_dict(self) -> dict[str, Any]:
        """Return all fields and `refused` as JSON types."""
        return {
            "images": self.images,
            "added": self.added,
            "present": self.present,
            "refused": self.refused(),
            "refusals": [asdict(refusal) for refusal in self.refusals],
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    name: str
    user_id: str | None
    face_id: str = ""


def face_id_of(group: str, user_id: str, picture: str, face: int = 0) -> str:
    """Derive the face id of an imported picture from its group, user and content.

    The id is reproducible, so the stored faces themselves record what was imported: no separate
    journal can disagree with them, and removing a face removes its entry.  A moved, renamed or
    copied folder is recognised.

    Parameters
    ----------
    group, user_id : str
    picture : str
        The SHA-256 of the file's content, in hexadecimal digits.
    face : int, default 0
        Number of the face in the picture; 0 is the largest.

    Returns
    -------
    str
        First 32 hexadecimal digits of a SHA-256 over all arguments.
    """
    # NUL separates unambiguously: names contain no control characters.
    text = f"facecore import\0{group}\0{user_id}\0{picture}" + (f"\0{face}" if face else "")
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def import_pictures(
    gallery: Gallery,
    group: str,
    source: Path | str,
    *,
    report: Path | str | None = None,
    progress: bool = False,
    if_many: IfMany = "largest",
) -> ImportResult:
    """Import faces from a folder of people, or from the pictures listed in a CSV file.

    Adds the largest face of each picture, without quality (`FaceRecord.quality` is None).
    An import interrupted by Ctrl-C or a power cut can be run again and ends with the same faces:
    pictures whose face is already in the group are skipped.  Refused pictures are retried.

    Parameters
    ----------
    gallery : Gallery
    group : str
        Name of an existing group.
    source : Path or str
        A folder with one subfolder per person, named by the ``user_id``
        (`facecore.images.folders.pictures_of_people`); or a CSV file of ``image,user_id``
        (`facecore.images.folders.listed_pictures`).
    report : Path or str, optional
        CSV file for the refused pictures, one line ``image,user_id,code,message`` each; also
        written if the import is interrupted.
    progress : bool, default False
        Show a progress bar on standard error.
    if_many : {"largest", "refuse"}
        As in `Gallery.add`: import the largest face, or refuse pictures of several faces.

    Raises
    ------
    GroupNotFound
        The gallery has no such group.
    InvalidParameter
        The source cannot be read or holds no picture, or the report cannot be written.
    GalleryLocked, GalleryNotWritable, ContractMismatch
        As in `Gallery.add_templates`; faces committed before the error stay.
    """
    source = Path(source)
    if report is not None:
        report = Path(report)
        check_writable(report)
    run = _Import(gallery, gallery.group(group).name, _sources(source), if_many)
    start = time.perf_counter()
    try:
        run.work(progress)
    finally:
        if report is not None:
            write_whole(report, _table(run.refusals()))
    refusals = tuple(run.refusals())
    seconds = time.perf_counter() - start
    return ImportResult(len(run.sources), run.added, run.present, refusals, seconds)


class _Import:
    """One run of an import: pictures in progress and outcomes so far."""

    def __init__(
        self, gallery: Gallery, group: str, sources: Sequence[_Source], if_many: IfMany
    ) -> None:
        self.gallery, self.group, self.sources = gallery, group, sources
        self.if_many: IfMany = if_many
        self.added = self._known = 0
        self._refused: dict[int, RejectedImage] = {}
        self._under_way: deque[tuple[int, _Source]] = deque()  # in the order of the vectors
        self._waiting: list[tuple[_Source, NDArray[np.float32]]] = []
        self._seen: set[str] = set()  # face ids that this run adds
        # Further pictures of these face ids: present once the first is added, refused with it.
        self._copies: defaultdict[str, list[tuple[int, _Source]]] = defaultdict(list)

    @property
    def present(self) -> int:
        """Number of pictures whose face was already in the group."""
        return self._known + sum(map(len, self._copies.values()))

    def refusals(self) -> list[RejectedImage]:
        """Return the refused pictures in the order of the sources."""
        return [self._refused[i] for i in sorted(self._refused)]

    def work(self, progress: bool) -> None:
        from tqdm import tqdm

        # Without a progress bar, `embed_many` returns a generator.
        answers = cast(
            "Generator[NDArray[np.float32] | FacecoreError]",
            self.gallery.engine.embed_many(self._pictures(), _BATCH, if_many=self.if_many),
        )
        count = len(self.sources)
        bar = tqdm(total=count, unit="image", desc="importing", disable=not progress)
        with bar, closing(answers) as vectors:
            for vector in vectors:
                number, source = self._under_way.popleft()
                if isinstance(vector, FacecoreError):
                    self._seen.discard(source.face_id)
                    self._refuse(number, source, vector)
                    for place, copy in self._copies.pop(source.face_id, ()):
                        self._refuse(place, copy, vector)
                else:
                    self._waiting.append((source, vector))
                    if len(self._waiting) == _COMMIT:
                        self._commit()
                bar.update(number + 1 - bar.n)
            self._commit()
            bar.update(len(self.sources) - bar.n)

    def _pictures(self) -> Iterator[bytes]:
        """Yield encoded pictures whose faces are not yet in the group."""
        numbered = iter(enumerate(self.sources))
        while some := list(islice(numbered, 16)):
            read = [found for item in some if (found := self._read(*item))]
            known = self.gallery.known(source.face_id for _, source, _ in read)
            for number, source, data in read:
                if source.face_id in self._seen:
                    self._copies[source.face_id].append((number, source))
                elif source.face_id in known:
                    self._known += 1
                else:
                    self._seen.add(source.face_id)
                    self._under_way.append((number, source))
                    yield data

    def _read(self, number: int, source: _Source) -> tuple[int, _Source, bytes] | None:
        try:
            if source.user_id is None:
                raise InvalidParameter("the picture is in no person's folder")
            user_id = check_user_id(source.user_id)
            data = images.read_bytes(source.path, self.gallery.engine.limits)
        except FacecoreError as error:
            self._refuse(number, source, error)
            return None
        face_id = face_id_of(self.group, user_id, hashlib.sha256(data).hexdigest())
        return number, _Source(source.path, source.name, user_id, face_id), data

    def _refuse(self, number: int, source: _Source, error: FacecoreError) -> None:
        user_id = source.user_id or ""
        self._refused[number] = RejectedImage(source.name, user_id, error.code, str(error))

    def _commit(self) -> None:
        import numpy as np

        if not self._waiting:
            return
        sources = [source for source, _ in self._waiting]
        self.gallery.add_templates(
            self.group,
            np.stack([vector for _, vector in self._waiting]),
            [source.user_id or "" for source in sources],
            contract=self.gallery.engine.contract_id,
            face_ids=[source.face_id for source in sources],
        )
        self.added += len(sources)
        self._waiting.clear()


def _sources(place: Path) -> list[_Source]:
    if place.is_dir():
        people = pictures_of_people(place)
        if all(person is None for person, _ in people):
            raise InvalidParameter(
                f"{place} holds {'pictures but no folder' if people else 'no picture'} of a person",
                "make a folder per person, named by the user_id, or give a CSV of image,user_id",
            )
        return [
            _Source(path, path.relative_to(place).as_posix(), person) for person, path in people
        ]
    if not place.is_file():
        raise InvalidParameter(f"{place} is neither a folder nor a file")
    listed = listed_pictures(place)
    if not listed:
        raise InvalidParameter(
            f"{place} lists no picture", "write one line image,user_id per picture"
        )
    return [_Source(path, _relative(path, place), user) for user, path in listed]


def _relative(path: Path, file: Path) -> str:
    try:
        return os.path.relpath(path, file.parent)
    except ValueError:  # on another Windows drive
        return str(path)


def _table(refusals: Sequence[RejectedImage]) -> bytes:
    return csv_bytes(
        ("image", "user_id", "code", "message"),
        ((r.image, r.user_id, r.code, r.message) for r in refusals),
    )
