"""Embed all faces of many pictures into a Parquet file, on one machine or on a Ray cluster."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facecore._utils.atomic_files import check_writable, exclusive, make_folder, written_whole
from facecore._utils.extras import require_extra
from facecore._version import __version__
from facecore.collections.faces import PictureFaces, read_faces
from facecore.engine import FaceEngine
from facecore.errors import ContractMismatch, FacecoreError, InvalidParameter
from facecore.gallery.vector_file import parquet_errors, vector_schema
from facecore.images import Limits
from facecore.images.folders import listed_paths, pictures_below

__all__ = ["Embedded", "embed_pictures"]

_PART = 1024  # pictures in one row group


@dataclass(frozen=True, slots=True)
class Embedded:
    """Result of `embed_pictures`.

    Attributes
    ----------
    pictures, faces : int
        Numbers in the file.
    resumed : int
        Pictures that an interrupted run had already embedded.
    refused : dict
        Number of pictures without a usable face, by error code.
    seconds : float
        Wall time.
    """

    pictures: int
    faces: int
    resumed: int
    refused: dict[str, int]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Part:
    """Pictures of one row group, and its file."""

    file: Path
    pictures: list[Path]


def embed_pictures(
    engine: FaceEngine,
    source: Path | str,
    out: Path | str,
    *,
    quality: bool = False,
    ray: str | None = None,
    workers: int | None = None,
    row_group: int = _PART,
    progress: bool = False,
) -> Embedded:
    """Write the vectors of all faces of many pictures into a Parquet file.

    The columns are those of `facecore.gallery.vector_file.vector_schema`; the rows follow the
    order of the pictures, largest face first.  Row groups are first written into the folder
    ``OUT.parts``, so an interrupted run loses only unfinished ones.  A resumed run reads changed
    pictures again.  At the end the file is written atomically and the folder is removed.

    Parameters
    ----------
    engine : FaceEngine
    source : Path or str
        Folder of pictures at any depth; or a text file with one path per line.
    out : Path or str
        Replaced if it exists.
    quality : bool, default False
        Measure the quality of each face.
    ray : str, optional
        "auto" for the Ray cluster of this machine, started if there is none; or the address of a
        cluster.  Each worker opens the pack by its name.  All machines must see `source` and
        `out` under the same paths.
    workers : int, optional
        Number of Ray workers; by default one per machine, which uses all of its processors.
    row_group : int, default 1024
        Pictures in one row group.
    progress : bool, default False
        Show a progress bar on standard error.

    Raises
    ------
    InvalidParameter
        There is no picture, `out` cannot be written, or Ray cannot be reached or failed.
    ContractMismatch
        A Ray worker has another version of the pack.
    MissingExtra
        pyarrow or ray is not installed.
    """
    from tqdm import tqdm

    start = time.perf_counter()
    source, out = Path(source), Path(out)
    schema = vector_schema(engine)
    # Unlike Path.is_dir, os.path.isdir raises nothing; `listed_paths` reports the problem.
    found = pictures_below(source) if os.path.isdir(source) else listed_paths(source)
    paths = [path.absolute() for path in found]  # the same on every machine
    if not paths:
        raise InvalidParameter(f"{source} names no picture", "give a folder or a list of pictures")
    if row_group < 1 or (workers is not None and workers < 1):
        raise InvalidParameter("row_group and workers must be at least 1")
    check_writable(out)
    if ray and ray != "auto":
        _check_reachable(ray)
    folder = out.with_name(f"{out.name}.parts")
    with exclusive(out):
        make_folder(folder)
        parts = [
            _part(engine, folder, paths[i : i + row_group], quality)
            for i in range(0, len(paths), row_group)
        ]
        missing = [part for part in parts if not part.file.exists()]
        with tqdm(total=len(paths), unit="image", desc="embedding", disable=not progress) as bar:
            done = len(paths) - sum(len(part.pictures) for part in missing)
            bar.update(done)
            written = (
                _on_ray(engine, missing, quality, ray, workers)
                if ray and missing
                else (_write(engine, part, quality) for part in missing)
            )
            for count in written:
                bar.update(count)
        faces, refused = _join(schema, parts, out)
        shutil.rmtree(folder, ignore_errors=True)
    return Embedded(len(paths), faces, done, refused, time.perf_counter() - start)


def _part(engine: FaceEngine, folder: Path, pictures: list[Path], quality: bool) -> _Part:
    """Name a row group's file by a hash of all that its rows depend on: it exists, so it fits."""
    models = engine.pack.detector.sha256, engine.pack.embedder.sha256  # variants share a contract
    gate, limits = engine.min_recognizability, asdict(engine.limits)
    made_by = [engine.contract_id, *models, gate, limits, __version__, quality]
    text = json.dumps([made_by, [(str(path), *_state(path)) for path in pictures]])
    return _Part(folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.parquet", pictures)


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _write(engine: FaceEngine, part: _Part, quality: bool) -> int:
    """Embed the pictures of a row group and write it; return their number."""
    pa = require_extra("pyarrow", "bulk")
    pq = require_extra("pyarrow.parquet", "bulk")
    schema = vector_schema(engine)
    found = read_faces(engine, part.pictures, quality=quality)
    table = pa.Table.from_pylist([row for picture in found for row in _rows(picture)], schema)
    with written_whole(part.file) as stream, _writer(pq, stream, schema) as writer:
        writer.write_table(table)
    return len(part.pictures)


def _rows(picture: PictureFaces) -> Iterator[dict[str, Any]]:
    # Arrow takes UTF-8 only; Linux file names may hold any bytes.
    path = str(picture.path).encode("utf-8", "backslashreplace").decode()
    common = {"path": path, "sha256": picture.sha256 or None}
    for one in picture.faces:
        yield common | {
            "face": one.number,
            "box": one.face.box,
            "landmarks": one.face.landmarks.ravel(),
            "confidence": one.face.confidence,
            "quality": one.quality,
            "vector": one.vector,
        }
    if picture.error is not None:
        yield common | {"code": picture.error.code, "message": str(picture.error)}


def _writer(pq: Any, stream: Any, schema: Any) -> Any:
    # A dictionary enlarges columns whose values are almost all different.
    return pq.ParquetWriter(
        stream,
        schema,
        compression="zstd",
        use_dictionary=["code", "message"],
        write_page_checksum=True,
    )


def _join(schema: Any, parts: Sequence[_Part], out: Path) -> tuple[int, dict[str, int]]:
    """Copy the row groups into one file; return the number of faces, and of refusals by code."""
    pq = require_extra("pyarrow.parquet", "bulk")
    faces, refused = 0, Counter[str]()
    with written_whole(out) as stream, _writer(pq, stream, schema) as writer:
        for part in parts:
            with parquet_errors(part.file, "remove it, and run this again"):
                table = pq.read_table(part.file, page_checksum_verification=True)
            codes = table["code"].drop_null().to_pylist()
            faces += len(table) - len(codes)
            refused.update(codes)
            writer.write_table(table)
    return faces, dict(sorted(refused.items()))


class _Worker:
    """A Ray worker with an engine that refuses the same faces and pictures as the caller's."""

    def __init__(
        self, pack: str, contract: str, min_recognizability: float, limits: Limits
    ) -> None:
        self.engine = FaceEngine(
            pack, threads=1, min_recognizability=min_recognizability, limits=limits
        )
        if self.engine.contract_id != contract:
            raise ContractMismatch(
                f"the pack {pack} of a Ray worker has another contract",
                "install the same pack on all machines of the cluster",
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        written = []
        for file, pictures, quality in zip(
            batch["file"], batch["pictures"], batch["quality"], strict=True
        ):
            part = _Part(Path(file), [Path(path) for path in json.loads(pictures)])
            written.append(_write(self.engine, part, bool(quality)))
        return {"written": written}


def _check_reachable(address: str) -> None:
    """Refuse an unreachable address at once; Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InvalidParameter(
            f"no Ray cluster can be reached at {address!r:.200}: {error}", "use auto, or HOST:PORT"
        ) from error


def _on_ray(
    engine: FaceEngine, parts: Sequence[_Part], quality: bool, address: str, workers: int | None
) -> Iterator[int]:
    """Write row groups in the workers of a Ray cluster; yield the sizes of those written."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before the import, which reads it
    ray = require_extra("ray", "ray")
    data = require_extra("ray.data", "ray")
    ours = not ray.is_initialized()
    try:
        if ours:
            _start(ray, address)
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # An engine uses all processors of its machine, so one worker per machine is enough.
        cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        cpus = [int(count) for count in cpus if count >= 1]
        count = workers or len(cpus)
        claimed = max(1, min(cpus) // -(-count // len(cpus)))
        rows = [
            {
                "file": str(part.file.absolute()),
                "pictures": json.dumps([str(path) for path in part.pictures]),
                "quality": quality,
            }
            for part in parts
        ]
        done = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            fn_constructor_args=(
                engine.pack.name,
                engine.contract_id,
                engine.min_recognizability,
                engine.limits,
            ),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(count, len(rows))),
            num_cpus=claimed,
        )
        for row in done.iter_rows():
            yield int(row["written"])
    except FacecoreError:  # from `_start`; some are ValueErrors
        raise
    except (ray.exceptions.RayError, ConnectionError, ValueError) as error:
        if isinstance(cause := getattr(error, "cause", None), FacecoreError):
            raise cause from error
        raise _failed(address, error) from error
    finally:
        if ours:
            ray.shutdown()


def _start(ray: Any, address: str) -> None:
    try:
        ray.init(
            address=None if address == "auto" else address,
            include_dashboard=False if address == "auto" else None,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except Exception as error:  # Ray raises a plain Exception if the start takes 30 s
        raise _failed(address, error) from error


def _failed(address: str, error: Exception) -> InvalidParameter:
    line = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return InvalidParameter(
        f"Ray at {address}: {line[0]:.300}",
        "read the logs of the cluster, then run this again: finished parts are kept",
    )
