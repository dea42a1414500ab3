"""Parquet files of vectors: one row per face, written by ``facecore embed``.

The schema's metadata holds the contract, the pack's name and the dimension D.  A picture without a
usable face has one row, with the code and message of its error and nulls in place of a face.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from facecore._utils.extras import require_extra
from facecore.errors import ArchiveCorrupt, ContractMismatch, FacecoreError, InvalidParameter
from facecore.gallery.archive import Moved, store_missing
from facecore.gallery.bulk_import import face_id_of
from facecore.gallery.enrolment import new_faces
from facecore.gallery.records import NewFace, check_choice, check_name
from facecore.matching.similarity import as_vectors

if TYPE_CHECKING:
    from facecore.engine import FaceEngine
    from facecore.gallery.gallery import Gallery

__all__ = ["UserFrom", "is_vector_file", "load_vectors", "parquet_errors", "vector_schema"]

UserFrom = Literal["folder", "picture"]

_FORMAT, _VERSION = b"facecore vectors", b"1"
_BATCH = 512  # faces in one transaction


def vector_schema(engine: FaceEngine) -> Any:
    """Return the `pyarrow.Schema` of a file of an engine's vectors; raises MissingExtra."""
    pa = require_extra("pyarrow", "bulk")
    dimension = engine.pack.embedder.output.dimension

    def numbers(count: int) -> Any:
        return pa.list_(pa.float32(), count)

    fields = [
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),  # null if the file cannot be read
        pa.field("face", pa.int32()),  # 0 for the largest
        pa.field("box", numbers(4)),
        pa.field("landmarks", numbers(10)),  # x, y of five points
        pa.field("confidence", pa.float32()),
        pa.field("quality", pa.float32()),
        pa.field("vector", numbers(dimension)),
        pa.field("code", pa.string()),
        pa.field("message", pa.string()),
    ]
    return pa.schema(
        fields,
        {
            b"facecore.format": _FORMAT,
            b"facecore.version": _VERSION,
            b"facecore.contract": engine.contract_id.encode(),
            b"facecore.pack": engine.pack.name.encode(),
            b"facecore.dimension": str(dimension).encode(),
        },
    )


def is_vector_file(path: Path) -> bool:
    """Whether a file starts like Parquet."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"PAR1"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(f"{path} cannot be read: {reason}") from error


def load_vectors(
    gallery: Gallery,
    path: Path | str,
    group: str,
    *,
    user: UserFrom = "folder",
    progress: bool = False,
) -> Moved:
    """Store the faces of a file that ``facecore embed`` wrote, without the pictures.

    The file is read twice: the first pass checks all of it before anything is stored.  Faces that
    the gallery already holds are skipped, including faces from ``facecore group import``.

    Parameters
    ----------
    gallery : Gallery
    path : Path or str
    group : str
        Created if missing.
    user : {"folder", "picture"}
        The user id of a face.  "folder": the name of the picture's folder; only the largest face of
        each picture is stored.  "picture": the path of the picture; every face is stored.
    progress : bool, default False
        Show a progress bar on standard error.

    Raises
    ------
    ContractMismatch
        The vectors belong to another vector space.
    ArchiveCorrupt
        The file is damaged or not from ``facecore embed``; nothing was changed.
    InvalidParameter
        The file cannot be read, a newer facecore wrote it, or a user_id is too long.
    MissingExtra
        pyarrow is not installed.
    """
    from tqdm import tqdm

    check_choice(user, "user", UserFrom)
    check_name(group)
    pq = require_extra("pyarrow.parquet", "bulk")
    faces = present = 0
    with (
        parquet_errors(path, "run facecore embed again"),
        Path(path).open("rb") as stream,  # a system error has its number; pyarrow's may not
        pq.ParquetFile(stream, page_checksum_verification=True) as file,
    ):
        _check(file.schema_arrow, gallery)
        rows = 2 * file.metadata.num_rows
        with tqdm(total=rows, desc="loading", unit="row", disable=not progress) as bar:
            reader = _Reader(file, gallery, group, user, bar)
            for _ in reader:
                pass
            gallery.create_group(group, exist_ok=True)
            for batch in reader:
                faces += len(batch.faces)
                present += store_missing(gallery, group, batch.faces, batch.vectors)
    return Moved(1, faces, present)


@contextmanager
def parquet_errors(path: Path | str, hint: str) -> Iterator[None]:
    """Convert damage to ArchiveCorrupt, and errors of the system to InvalidParameter."""
    pa = require_extra("pyarrow", "bulk")
    try:
        yield
    except (FacecoreError, MemoryError):  # MemoryError: pyarrow's are ArrowExceptions too
        raise
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise InvalidParameter(f"{path} cannot be read: {error.strerror}") from error
        text = " ".join(str(error).split())
        raise ArchiveCorrupt(f"{path} cannot be read: {text:.200}", hint) from error


def _check(schema: Any, gallery: Gallery) -> None:
    """Refuse a file of another kind, version or vector space, by its schema alone."""
    found = schema.metadata or {}
    if found.get(b"facecore.format") != _FORMAT:
        raise ArchiveCorrupt("facecore embed did not write this file", "run facecore embed")
    if found.get(b"facecore.version") != _VERSION:
        raise InvalidParameter(
            f"the file has version {found.get(b'facecore.version')!r:.20}, this facecore reads 1",
            "update facecore: pip install --upgrade facecore",
        )
    contract = found.get(b"facecore.contract", b"").decode(errors="replace")
    if contract != gallery.contract_id:
        pack = found.get(b"facecore.pack", b"").decode(errors="replace")
        raise ContractMismatch(
            f"the file holds vectors of the pack {pack!r:.80} (contract {contract!r:.80}), the "
            f"gallery is of the pack {gallery.engine.pack.name} (contract {gallery.contract_id})"
        )
    if schema.remove_metadata() != vector_schema(gallery.engine).remove_metadata():
        raise ArchiveCorrupt("a column is missing, or has another type", "run facecore embed again")


@dataclass(frozen=True, slots=True)
class _Batch:
    faces: list[NewFace]
    vectors: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Iterate over the faces to store, in batches; each pass checks all of them."""

    file: Any
    gallery: Gallery
    group: str
    user: UserFrom
    bar: Any

    def __iter__(self) -> Iterator[_Batch]:
        columns = ["path", "sha256", "face", "quality", "vector"]
        seen: set[str] = set()
        for batch in self.file.iter_batches(_BATCH, columns=columns):
            self.bar.update(len(batch))
            paths, pictures, numbers, quality, vectors = batch.columns
            rows = list(zip(*(c.to_pylist() for c in (paths, pictures, numbers)), strict=True))
            ids: dict[str, tuple[int, str]] = {}
            for row, (path, picture, number) in enumerate(rows):
                if number is None or (self.user == "folder" and number > 0):
                    continue
                user_id = PurePath(path).parent.name if self.user == "folder" else path
                face_id = face_id_of(self.group, user_id, str(picture), number)
                if face_id not in seen:  # skip copies of one picture
                    ids[face_id] = row, user_id
            seen |= ids.keys()
            if not ids:
                continue
            chosen = [row for row, _ in ids.values()]
            part = vectors.take(chosen)
            if part.null_count or part.flatten().null_count:
                raise ArchiveCorrupt("a face has no vector", "run facecore embed again")
            faces = new_faces(
                [user_id for _, user_id in ids.values()],
                face_ids=list(ids),
                quality=quality.take(chosen).to_pylist(),
            )
            dimension = self.gallery.engine.pack.embedder.output.dimension
            matrix = part.flatten().to_numpy().reshape(-1, dimension)
            yield _Batch(faces, as_vectors(matrix, dimension))
