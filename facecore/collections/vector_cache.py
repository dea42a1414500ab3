"""Cache of face vectors, keyed by the content of the picture files."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from facecore._utils.atomic_files import make_private
from facecore._version import __version__
from facecore.engine import FaceEngine
from facecore.errors import InvalidParameter
from facecore.face.detection import Face
from facecore.models.registry import cache_root

__all__ = ["CachedFace", "VectorCache"]

_log = logging.getLogger(__name__)
_FACE = 15  # floats before a face's vector: box, landmarks, confidence
_DIGEST = 16  # bytes before the faces: SQLite has no checksums

CachedFace = tuple[Face, "np.ndarray[tuple[int], np.dtype[np.float32]]"]


class VectorCache:
    """Cache of the faces of pictures, in an SQLite file that only its owner can read.

    The file holds templates, which are biometric data; delete it to erase them.  A file that
    SQLite cannot open is replaced by an empty one, because the pictures can be embedded again.
    For the same reason, a damaged row counts as missing.

    Parameters
    ----------
    engine : FaceEngine
        Entries of another pack, facecore version or `min_recognizability` are ignored.
    path : Path or str, optional
        By default ``faces.db`` in the user's cache folder.

    Raises
    ------
    InvalidParameter
        The file cannot be read or written.  `get` and `put` raise this error too.
    """

    def __init__(self, engine: FaceEngine, path: Path | str | None = None) -> None:
        self.path = cache_root().parent / "faces.db" if path is None else Path(path)
        # A variant shares the contract of another pack, but computes different vectors.
        models = (engine.pack.detector.sha256[:16], engine.pack.embedder.sha256[:16])
        # Only faces that pass the gate are stored.
        gate = repr(engine.min_recognizability)
        self._space = " ".join([engine.contract_id, *models, __version__, gate])
        with self._typed_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._open()

    def __enter__(self) -> VectorCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; stored faces are kept."""
        self._database.close()

    def get(self, pictures: Sequence[bytes]) -> dict[bytes, list[CachedFace]]:
        """Look up cached pictures by the SHA-256 of their files; faces are sorted largest first."""
        marks = ",".join("?" * len(pictures))
        # A damaged column may have another type; only NULL is still no bytes after the cast.
        statement = (
            "SELECT picture, CAST(faces AS BLOB) FROM faces"
            f" WHERE space = ? AND picture IN ({marks})"
        )
        with self._typed_errors():
            rows = self._database.execute(statement, (self._space, *pictures))
            return {
                picture: _unpack(data[_DIGEST:])
                for picture, data in rows
                if data and data[:_DIGEST] == self._digest(picture, data[_DIGEST:])
            }

    def put(self, pictures: Mapping[bytes, Iterable[CachedFace]]) -> None:
        """Store the faces of pictures in one transaction."""
        packed = {picture: _pack(faces) for picture, faces in pictures.items()}
        rows = [(self._space, key, self._digest(key, data) + data) for key, data in packed.items()]
        with self._typed_errors(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO faces VALUES (?, ?, ?)", rows)

    def _digest(self, picture: bytes, faces: bytes) -> bytes:
        row = self._space.encode() + picture + faces
        return hashlib.blake2b(row, digest_size=_DIGEST).digest()

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise InvalidParameter(
                f"{self.path} cannot be read or written: {error}",
                "remove it if it is damaged, or use --no-cache",
            ) from error

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            _log.warning("%s is damaged (%s): replacing it with an empty file", self.path, error)
            self.path.unlink()
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        # Before SQLite creates it.  Opening an existing file here would end SQLite's locks on it:
        # https://sqlite.org/howtocorrupt.html, section 2.2.
        make_private(self.path)
        database = sqlite3.connect(self.path, timeout=30)
        with contextlib.ExitStack() as undo:
            undo.callback(database.close)
            with database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS faces (space TEXT, picture BLOB, faces BLOB,"
                    " PRIMARY KEY (space, picture)) WITHOUT ROWID"
                )
            undo.pop_all()
        return database


def _pack(faces: Iterable[CachedFace]) -> bytes:
    rows = [
        np.concatenate((face.box, face.landmarks.ravel(), [face.confidence], vector))
        for face, vector in faces
    ]
    return np.array([len(rows)], "<u4").tobytes() + np.array(rows, "<f4").tobytes()


def _unpack(data: bytes) -> list[CachedFace]:
    count = int(np.frombuffer(data, "<u4", 1)[0])
    if not count:
        return []
    rows = np.frombuffer(data, "<f4", offset=4).reshape(count, -1).astype(np.float32)
    return [
        (Face(row[:4], row[4:14].reshape(5, 2), float(row[14])), row[_FACE:].copy()) for row in rows
    ]
