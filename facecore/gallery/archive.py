"""Archive file that moves groups between galleries, also of different backends.

Version 1 is text with one JSON object per line, so it can be written and read line by line:

- the first line is the header: ``format``, ``version``, ``contract``, ``pack``, ``dimension``;
- ``{"group": name, "title": ..., "description": ...}`` starts a group;
- one line per face of the group: ``face_id``, ``user_id``, ``quality`` (or null), ``origin``,
  ``created`` (ISO 8601, UTC) and ``template``, the D float32 numbers, little-endian, in base64;
- the last line is ``{"groups": ..., "faces": ..., "sha256": ...}``: the counts, and the SHA-256 of
  all bytes before that line.

A reader checks the header, every line and the hash in a first pass, and stores faces in a second.
With a key, the same text is encrypted; see `facecore.gallery.sealed`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from facecore._utils.atomic_files import written_whole
from facecore.errors import (
    ArchiveCorrupt,
    ContractMismatch,
    GroupExists,
    InvalidParameter,
    WrongKey,
)
from facecore.gallery.enrolment import new_faces
from facecore.gallery.keys import GalleryKey, as_key
from facecore.gallery.records import FaceRecord, NewFace, check_name, check_text
from facecore.gallery.sealed import SealedReader, SealedWriter, is_sealed
from facecore.matching.similarity import as_vectors

if TYPE_CHECKING:
    from facecore.gallery.gallery import Gallery

__all__ = ["Moved", "export_groups", "load_groups", "store_missing"]

_FORMAT, _VERSION = "facecore gallery", 1
_LONGEST_LINE = 1 << 18  # a template of 4,096 numbers has 22 kB, a description at most 25 kB
_BATCH = 512  # faces in one transaction

_HEADER = {"format", "version", "contract", "pack", "dimension"}
_GROUP = {"group", "title", "description"}
_FACE = {"face_id", "user_id", "quality", "origin", "created", "template"}
_END = {"groups", "faces", "sha256"}


@dataclass(frozen=True, slots=True)
class Moved:
    """Result of `export_groups` or `load_groups`.

    Attributes
    ----------
    groups : int
    faces : int
        Number in the file.
    present : int
        Faces that the gallery already held, for example after an interrupted load.
    """

    groups: int
    faces: int
    present: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return all fields as JSON types."""
        return asdict(self)


def export_groups(
    gallery: Gallery,
    path: str | os.PathLike[str],
    groups: Sequence[str] | None = None,
    *,
    progress: bool = False,
    key: GalleryKey | None = None,
    plain: bool = False,
) -> Moved:
    """Write groups with their faces and templates into a file, atomically.

    Faces added or removed meanwhile may or may not be in the file.  The file holds biometric
    templates: protect it like the gallery.  Only its owner may read it (mode 0600).  Leftovers of
    an interrupted export to the same file are removed.

    Parameters
    ----------
    gallery : Gallery
    path : str or PathLike
        Replaced if it exists.
    groups : sequence of str, optional
        All groups by default.
    progress : bool, default False
        Show a progress bar on standard error.
    key : bytes, str or callable, optional
        Encrypt the file under this key, as in `facecore.Gallery`; by default under the key of the
        gallery, if it has one.
    plain : bool, default False
        Do not encrypt the file of an encrypted gallery.

    Raises
    ------
    GroupNotFound
    InvalidParameter
        The file cannot be written; or `key` and `plain` are both given.
    MissingExtra
        The package cryptography is not installed.
    """
    if plain and key is not None:
        raise InvalidParameter("key and plain were both given", "give one of them")
    secret = None if plain else _secret(gallery, key)
    chosen = (
        gallery.groups() if groups is None else [gallery.group(n) for n in dict.fromkeys(groups)]
    )
    faces = 0
    with (
        written_whole(Path(path), private=True) as stream,
        _bar("exporting", sum(group.size for group in chosen), "face", progress) as update,
    ):
        digest = hashlib.sha256()
        out = stream if secret is None else SealedWriter(stream, secret)

        def write(value: dict[str, Any]) -> None:
            line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            digest.update(line)
            out.write(line)

        pack = gallery.engine.pack
        write(
            {
                "format": _FORMAT,
                "version": _VERSION,
                "contract": gallery.contract_id,
                "pack": pack.name,
                "dimension": pack.embedder.output.dimension,
            }
        )
        for group in chosen:
            write({"group": group.name, "title": group.title, "description": group.description})
            for records, vectors in gallery.templates(group.name, _BATCH):
                for record, vector in zip(records, vectors, strict=True):
                    write(_line(record, vector))
                faces += len(records)
                update(len(records))
        write({"groups": len(chosen), "faces": faces, "sha256": digest.hexdigest()})
        if isinstance(out, SealedWriter):
            out.close()
    return Moved(len(chosen), faces)


def load_groups(
    gallery: Gallery,
    path: str | os.PathLike[str],
    *,
    progress: bool = False,
    key: GalleryKey | None = None,
) -> Moved:
    """Store the groups of a file that `export_groups` wrote, with their faces.

    Missing groups are created.  Existing groups keep their title and faces, and receive the faces
    whose id the gallery does not hold, so an interrupted load can be repeated.  Face ids, users,
    origins, qualities and times of addition are kept.  `FaceRecord.id` and `Group.id` are new.

    Parameters
    ----------
    gallery : Gallery
    path : str or PathLike
    progress : bool, default False
        Show a progress bar on standard error.
    key : bytes, str or callable, optional
        Key of an encrypted file; by default the key of the gallery, if it has one.

    Raises
    ------
    WrongKey
        The file is encrypted under another key, or no key was given.
    ContractMismatch
        The templates belong to another vector space.
    ArchiveCorrupt
        The file is damaged, truncated or not an archive, or contains a face id twice; nothing was
        changed.
    InvalidParameter
        The file cannot be read, or a newer facecore wrote it.
    """
    secret = _secret(gallery, key)
    path = Path(path)
    try:
        with path.open("rb") as stream:
            size = 2 * path.stat().st_size
            with _bar("loading", size, "B", progress) as update:
                for _ in _Reader(_unsealed(stream, secret), gallery, update):  # check all first
                    pass
                stream.seek(0)
                reader, present = _Reader(_unsealed(stream, secret), gallery, update), 0
                for part in reader:
                    present += _store(gallery, part)
    except OSError as error:
        raise InvalidParameter(f"{path} cannot be read: {error.strerror or error}") from error
    except ArchiveCorrupt as error:
        raise ArchiveCorrupt(f"{path}: {error.message}") from error
    except WrongKey as error:
        hint = "give its key: key= in Python, or --archive-key-file in a command"
        raise WrongKey(f"{path}: {error.message}", hint) from error
    return Moved(reader.groups, reader.faces, present)


def _secret(gallery: Gallery, key: GalleryKey | None) -> bytes | None:
    return gallery.key if key is None else as_key(key)


def _unsealed(stream: BinaryIO, key: bytes | None) -> BinaryIO:
    """Return the plain text of a stream at its start; decrypt it if it is encrypted."""
    if not is_sealed(stream):
        return stream
    if key is None:
        raise WrongKey("the file is encrypted, and no key was given")
    return io.BufferedReader(SealedReader(stream, key), 1 << 16)


@dataclass(frozen=True, slots=True)
class _NewGroup:
    name: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class _NewFaces:
    group: str
    faces: Sequence[NewFace]
    vectors: NDArray[np.float32]


def _store(gallery: Gallery, part: _NewGroup | _NewFaces) -> int:
    """Store a missing group or missing faces; return the number of faces already present."""
    if isinstance(part, _NewGroup):
        with contextlib.suppress(GroupExists):
            gallery.create_group(part.name, title=part.title, description=part.description)
        return 0
    return store_missing(gallery, part.group, part.faces, part.vectors)


def store_missing(
    gallery: Gallery, group: str, faces: Sequence[NewFace], vectors: NDArray[np.float32]
) -> int:
    """Store the faces that the gallery does not hold; return the number that it holds."""
    known = gallery.known(face.face_id for face in faces)
    rows = [i for i, face in enumerate(faces) if face.face_id not in known]
    new = [faces[i] for i in rows]
    if new:
        gallery.add_templates(
            group,
            vectors[rows],
            [face.user_id for face in new],
            contract=gallery.contract_id,
            face_ids=[face.face_id for face in new],
            quality=[face.quality for face in new],
            origin=[face.origin for face in new],
            created=[face.created for face in new],
        )
    return len(faces) - len(new)


class _Reader:
    """Read and check the groups and faces of a file, line by line.

    Attributes
    ----------
    groups, faces : int
        Numbers read so far.
    """

    def __init__(self, stream: BinaryIO, gallery: Gallery, update: Callable[[int], object]) -> None:
        self.groups = self.faces = 0
        self._stream, self._gallery, self._update = stream, gallery, update
        self._digest = hashlib.sha256()
        self._number = 0
        self._face_ids = bytearray()  # 16 bytes each

    def __iter__(self) -> Iterator[_NewGroup | _NewFaces]:
        self._check_header(self._next())
        names: set[str] = set()
        name, rows = "", []
        while True:
            before = self._digest.hexdigest()
            row = self._next()
            if set(row) == _FACE and names:
                rows.append(row)
                if len(rows) < _BATCH:
                    continue
            if rows:
                yield self._faces(name, rows)
                rows = []
            if set(row) == _GROUP:
                with self._wrong():
                    name = check_name(row["group"])
                    title = check_text(row["title"], "title")
                    description = check_text(row["description"], "description")
                if name in names:
                    raise self._corrupt(f"the group {name!r} is repeated")
                names.add(name)
                self.groups += 1
                yield _NewGroup(name, title, description)
            elif set(row) == _END:
                if row != {"groups": self.groups, "faces": self.faces, "sha256": before}:
                    raise self._corrupt("its counts or SHA-256 do not match the lines before it")
                if self._stream.read(1):
                    raise self._corrupt("data follows the last line")
                self._check_face_ids()
                return
            elif set(row) != _FACE or not names:
                raise self._corrupt("it is neither a group nor a face of a group")

    def _next(self) -> dict[str, Any]:
        line = self._stream.readline(_LONGEST_LINE)
        self._number += 1
        if not line.endswith(b"\n"):
            raise self._corrupt("it is cut off" if len(line) < _LONGEST_LINE else "it is too long")
        self._digest.update(line)
        self._update(len(line))
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise self._corrupt("it is not JSON") from error
        if not isinstance(row, dict):
            raise self._corrupt("it is not a JSON object")
        return row

    def _check_header(self, row: dict[str, Any]) -> None:
        if row.get("format") != _FORMAT:
            raise self._corrupt("facecore group export did not write this file")
        if row.get("version") != _VERSION:
            raise InvalidParameter(
                f"the file has version {row.get('version')!r:.20}, this facecore reads {_VERSION}",
                "update facecore: pip install --upgrade facecore",
            )
        if set(row) != _HEADER:
            raise self._corrupt("a field is missing, or unknown")
        pack = self._gallery.engine.pack
        if row["contract"] != self._gallery.contract_id:
            raise ContractMismatch(
                f"the file holds templates of the pack {row['pack']!r:.80} (contract "
                f"{row['contract']!r:.80}), the gallery is of the pack {pack.name} "
                f"(contract {self._gallery.contract_id})"
            )
        if row["dimension"] != pack.embedder.output.dimension:
            raise self._corrupt("the dimension differs from the contract's")

    def _faces(self, group: str, rows: list[dict[str, Any]]) -> _NewFaces:
        dimension = self._gallery.engine.pack.embedder.output.dimension
        with self._wrong():
            faces = new_faces(
                [row["user_id"] for row in rows],
                face_ids=[row["face_id"] for row in rows],
                quality=[row["quality"] for row in rows],
                origin=[row["origin"] for row in rows],
                created=[datetime.fromisoformat(row["created"]) for row in rows],
            )
            data = [base64.b64decode(row["template"], validate=True) for row in rows]
            if {len(item) for item in data} != {4 * dimension}:
                raise ValueError(f"a template does not have {dimension} numbers")
            vectors = np.frombuffer(b"".join(data), "<f4").reshape(len(rows), dimension)
            vectors = as_vectors(vectors, dimension)
        self.faces += len(rows)
        self._face_ids += b"".join(bytes.fromhex(face.face_id) for face in faces)
        return _NewFaces(group, faces, vectors)

    def _check_face_ids(self) -> None:
        """Refuse a repeated face id: only one of the two faces could be stored."""
        ids = np.sort(np.frombuffer(self._face_ids, "S16"))
        twice = np.flatnonzero(ids[1:] == ids[:-1])
        if len(twice):
            first = ids[twice[0]].ljust(16, b"\0").hex()  # NumPy strips trailing zeros
            raise self._corrupt(
                f"{len(twice)} face ids are repeated, such as {first}", "up to line"
            )

    @contextlib.contextmanager
    def _wrong(self) -> Iterator[None]:
        try:
            yield
        except (InvalidParameter, TypeError, ValueError) as error:
            text = error.message if isinstance(error, InvalidParameter) else str(error)
            raise self._corrupt(f"{text:.200}", "up to line") from error

    def _corrupt(self, text: str, where: str = "line") -> ArchiveCorrupt:
        return ArchiveCorrupt(f"{where} {self._number}: {text}")


def _line(record: FaceRecord, vector: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "face_id": record.face_id,
        "user_id": record.user_id,
        "quality": record.quality,
        "origin": record.origin,
        "created": record.created.isoformat(),
        "template": base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii"),
    }


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@contextlib.contextmanager
def _bar(title: str, total: int, unit: str, shown: bool) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit=unit, unit_scale=True, disable=not shown) as bar:
        yield bar.update
