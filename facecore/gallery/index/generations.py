"""Saved indexes on disk: complete generations, verified before use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from facecore._utils import atomic_files
from facecore.errors import InvalidParameter

__all__ = ["Generation", "Unusable", "discard", "latest", "numbers", "save", "sweep", "watermark"]

FORMAT = 1
MANIFEST = "manifest.json"
NUMBERED = re.compile(r"[0-9]{6,18}")


class Saveable(Protocol):
    """The part of an index that `save` needs."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        ...

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def save(self, folder: Path) -> None:
        """Write the index's files into an existing empty folder."""
        ...


@dataclass(frozen=True, slots=True)
class Generation:
    """A saved index whose files were verified.

    Attributes
    ----------
    folder : Path
        Argument of the index's `load`.
    kind : str
        Index type: "exact", "hnsw".
    dimension : int
        Length of the vectors.
    contract : str
        Contract id of the templates.
    rows : int
        Number of templates.
    parameters : dict
        Construction parameters of the index.
    watermark : dict
        State of the store that the index reflects, in the store's own terms.
    """

    folder: Path
    kind: str
    dimension: int
    contract: str
    rows: int
    parameters: dict[str, Any]
    watermark: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unusable:
    """One-line reason why no saved index can be loaded."""

    reason: str


def save(
    root: Path,
    index: Saveable,
    *,
    kind: str,
    contract: str,
    watermark: Mapping[str, Any],
    parameters: Mapping[str, Any] | None = None,
) -> Generation:
    """Write an index as the newest generation, then remove the older ones.

    After a crash at any point, `latest` finds either the previous generation or this one,
    complete. Only one process may call `save` and `discard` at a time; any number may read
    meanwhile. On POSIX, readers keep open files of an old generation; on Windows, open files
    cannot be removed until the next call.

    Parameters
    ----------
    root : Path
        Folder of the generations; created if missing.
    index : Saveable
        Must not change during the call, unless `watermark` covers the change.
    kind, contract, watermark, parameters
        See `Generation`; the mappings hold JSON values.

    Raises
    ------
    InvalidParameter
        Writing failed, for example on a full disk. The older generations are kept.
    """
    atomic_files.make_folder(root.parent, 0o700)
    atomic_files.make_folder(root, 0o700)
    with contextlib.suppress(OSError):
        atomic_files.remove_leftovers(root)
    old = numbers(root)
    folder = root / f"{max(old, default=0) + 1:06d}"
    generation = Generation(
        folder=folder,
        kind=kind,
        dimension=index.dimension,
        contract=contract,
        rows=len(index),
        parameters=dict(parameters or {}),
        watermark=dict(watermark),
    )
    try:
        with atomic_files.staged(folder, 0o700) as partial:
            index.save(partial)
            _write_manifest(partial, generation)
            atomic_files.sync(partial)
            partial.rename(folder)
            atomic_files.sync(root)
    except OSError as error:
        raise InvalidParameter(
            f"{folder} cannot be written: {error.strerror or error}",
            "free some space, or name a folder that can be written",
        ) from error
    for number in old:
        with contextlib.suppress(OSError):  # open in a reader on Windows; the next call removes it
            _remove(root, number)
    return generation


def latest(root: Path, contract: str, dimension: int) -> Generation | Unusable:
    """Find the newest intact generation of this contract.

    Reads all of its files to verify their SHA-256.

    Parameters
    ----------
    root : Path
        Folder of the generations; may be missing.
    contract : str
        Contract id that the templates must have.
    dimension : int
        Length that the vectors must have.

    Returns
    -------
    Generation or Unusable
        `Unusable` states the reason for the newest generation.
    """
    while True:
        reason = "there is no saved index"
        there = numbers(root)
        for number in reversed(there):
            found = _verified(root / f"{number:06d}", contract, dimension)
            if isinstance(found, Generation):
                return found
            if number == there[-1]:
                reason = found.reason
        # If a writer replaced the generations meanwhile, try again.
        if numbers(root) == there:
            return Unusable(reason)


def watermark(root: Path) -> dict[str, Any] | None:
    """Read the watermark of the newest generation without verifying any file.

    Used to decide whether to discard it. None if there is no readable generation.
    """
    for number in reversed(numbers(root)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            manifest = json.loads((root / f"{number:06d}" / MANIFEST).read_bytes())
            return dict(manifest["generation"]["watermark"])
        return None
    return None


def numbers(root: Path) -> list[int]:
    """List the numbers of all generations, intact or not, oldest first."""
    try:
        return sorted(int(path.name) for path in root.iterdir() if NUMBERED.fullmatch(path.name))
    except OSError:
        return []


def discard(root: Path) -> None:
    """Remove all generations, so that no file keeps a removed template.

    Disk blocks are freed, not overwritten: a reader may have the files open.

    Raises
    ------
    InvalidParameter
        A file could not be removed: open in a reader on Windows.
    """
    if not root.is_dir():
        return
    try:
        for number in numbers(root):
            _remove(root, number)
        atomic_files.remove_leftovers(root)
        atomic_files.sync(root)
    except OSError as error:
        raise InvalidParameter(
            f"{root} cannot be emptied: {error.strerror or error}",
            "close the programs that have its files open, and try again",
        ) from error


def sweep(root: Path) -> None:
    """Remove leftovers of an interrupted `save` or `discard`; for the writing process only.

    Raises
    ------
    InvalidParameter
        As in `discard`.
    """
    if root.is_dir():
        try:
            atomic_files.remove_leftovers(root)
        except OSError as error:
            raise InvalidParameter(
                f"{root} cannot be cleaned: {error.strerror or error}"
            ) from error


def _verified(folder: Path, contract: str, dimension: int) -> Generation | Unusable:
    try:
        data = (folder / MANIFEST).read_bytes()
    except OSError as error:
        return Unusable(f"{folder.name}: no {MANIFEST}: {error.strerror or error}")
    try:
        manifest = json.loads(data)
        # Compare bytes, so that every flipped bit is detected.
        intact = _sealed(manifest) == data
    except (ValueError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        return Unusable(f"{folder.name}: {MANIFEST} is damaged")
    if manifest.get("format") != FORMAT:
        return Unusable(f"{folder.name}: its format is {manifest.get('format')}, not {FORMAT}")
    try:
        generation = _described(folder, manifest)
    except (AttributeError, KeyError, TypeError, ValueError):
        return Unusable(f"{folder.name}: {MANIFEST} does not describe an index")
    if generation.contract != contract:
        return Unusable(f"{folder.name}: its contract is {generation.contract}, not {contract}")
    if generation.dimension != dimension:
        return Unusable(f"{folder.name}: its dimension is {generation.dimension}, not {dimension}")
    files: dict[str, dict[str, Any]] = manifest["files"]
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        reasons = pool.map(lambda name: _damage(folder / name, files[name]), files)
        for reason in reasons:
            if reason:
                return Unusable(f"{folder.name}: {reason}")
    return generation


def _described(folder: Path, manifest: Mapping[str, Any]) -> Generation:
    """Parse a manifest and check the type of every field and file."""
    generation = Generation(folder=folder, **manifest["generation"])
    types = {"kind": str, "contract": str, "dimension": int, "rows": int}
    for name, kind in {**types, "parameters": dict, "watermark": dict}.items():
        if type(getattr(generation, name)) is not kind:
            raise TypeError(name)
    for name, entry in manifest["files"].items():
        if Path(name).name != name or type(entry["size"]) is not int or not entry["sha256"]:
            raise TypeError(name)
    return generation


def _damage(path: Path, entry: Mapping[str, Any]) -> str:
    try:
        size = path.stat().st_size
        if size != entry["size"]:
            return f"{path.name} has {size} bytes, not {entry['size']}"
        if _sha256(path) != entry["sha256"]:
            return f"{path.name} is damaged"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror or error}"
    return ""


def _write_manifest(folder: Path, generation: Generation) -> None:
    paths = sorted(folder.iterdir())
    files = {path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in paths}
    described = asdict(generation)
    del described["folder"]
    manifest = {"format": FORMAT, "generation": described, "files": files}
    (folder / MANIFEST).write_bytes(_sealed(manifest))
    for path in [*paths, folder / MANIFEST]:
        path.chmod(0o600)
        atomic_files.sync(path)


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """Encode the manifest with its own SHA-256, replacing an existing one."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode())
    return json.dumps({**body, "sha256": digest.hexdigest()}, sort_keys=True, indent=1).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove(root: Path, number: int) -> None:
    # Rename first, so that no reader sees a partly removed generation.
    grave = root / f".tmp-{secrets.token_hex(6)}"
    (root / f"{number:06d}").rename(grave)
    shutil.rmtree(grave)
