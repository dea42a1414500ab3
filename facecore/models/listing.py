"""The packs of this machine: list them and verify them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from facecore.errors import FacecoreError, PackCorrupt, PackNotFound
from facecore.models import packs, registry
from facecore.models.adopt import adopted_packs
from facecore.models.manifest import MANIFEST_NAME, Manifest, read_manifest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from facecore.models.registry import RegistryEntry

__all__ = ["FileCheck", "PackInfo", "list_packs", "verify"]


@dataclass(frozen=True, slots=True)
class PackInfo:
    """What ``weights list`` shows of one pack.

    Parameters
    ----------
    name, summary : str
        From the registry; of an adopted pack, from its manifest.
    shipped : bool
        Whether it travels inside facecore; if not, it is pulled.
    installed : bool
        Whether all its files are here, with the right sizes. `verify` also hashes them.
    folder : Path or None
        Where it is, when it is installed.
    size : int
        Bytes of all its models.
    manifest : Manifest or None
        Licences, sources, training data and caveats of its models, by ``manifest.models``.
    problem : str
        Why there is no manifest; empty when there is.
    adopted : bool
        Whether it was made of a user's own files.
    """

    name: str
    summary: str
    shipped: bool
    installed: bool
    folder: Path | None
    size: int
    manifest: Manifest | None
    problem: str
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What `verify` found about one file of a pack.

    Parameters
    ----------
    pack : str
        Name of the pack.
    file : str
        Name of the file; the manifest's when the pack itself cannot be read.
    installed : bool
        Whether the pack is on this machine. A known pack that was not pulled is not wrong.
    ok : bool
        Whether the file is there and is the published one.
    problem : str
        What is wrong, in one line; empty when `ok`.
    hint : str
        What to do about it; empty when `ok`.
    """

    pack: str
    file: str
    installed: bool
    ok: bool
    problem: str = ""
    hint: str = ""


def list_packs() -> tuple[PackInfo, ...]:
    """Describe every pack that facecore knows by name, and every adopted one, without hashing.

    Examples
    --------
    >>> import facecore
    >>> [pack.name for pack in facecore.list_packs() if pack.shipped]
    ['compact', 'compact-int8']
    """
    listed = [_describe(entry) for entry in registry.read_registry().values()]
    return (*listed, *(_describe_adopted(name) for name in adopted_packs()))


def verify(name_or_path: str | os.PathLike[str] | None = None) -> tuple[FileCheck, ...]:
    """Hash the files of a pack, or of every known pack, against its manifest.

    Parameters
    ----------
    name_or_path : str or PathLike, optional
        One pack; see `facecore.models.packs.find_pack`.  Left out, all of `list_packs`.

    Returns
    -------
    tuple of FileCheck
        One per file; one for the whole pack when it is not installed or has no manifest.

    Raises
    ------
    PackNotFound
        The name is of no known pack. A bad pack is a result and never an error.
    """
    if name_or_path is None:
        names = (*registry.read_registry(), *adopted_packs())
        return tuple(check for name in names for check in _verify_one(name))
    return tuple(_verify_one(name_or_path))


def _describe(entry: RegistryEntry) -> PackInfo:
    manifest, problem = None, ""
    try:
        manifest = read_manifest(registry.shipped_root() / entry.name / MANIFEST_NAME)
    except FacecoreError as error:
        problem = str(error)
    folder = _whole(entry.name) if manifest else None
    size = sum(model.size for model in manifest.models.values()) if manifest else 0
    return PackInfo(
        name=entry.name,
        summary=entry.summary,
        shipped=entry.shipped,
        installed=folder is not None,
        folder=folder,
        size=size,
        manifest=manifest,
        problem=problem,
    )


def _describe_adopted(name: str) -> PackInfo:
    manifest, problem, folder = None, "", None
    try:
        manifest = read_manifest(registry.cache_root() / name / MANIFEST_NAME)
        folder = _whole(name)
        if folder is None:
            problem = "a model file is missing or has another size; adopt it again"
    except FacecoreError as error:
        problem = str(error)
    return PackInfo(
        name=name,
        summary=manifest.summary if manifest else "",
        shipped=False,
        installed=folder is not None,
        folder=folder,
        size=sum(model.size for model in manifest.models.values()) if manifest else 0,
        manifest=manifest,
        problem=problem,
        adopted=True,
    )


def _whole(name: str) -> Path | None:
    """Folder of a pack whose files are all here, with the right sizes."""
    try:
        pack = packs.find_pack(name)
        sizes = all(
            pack.path(model).stat().st_size == model.size for model in pack.manifest.models.values()
        )
    except (FacecoreError, OSError):
        return None
    return pack.folder if sizes else None


def _verify_one(name_or_path: str | os.PathLike[str]) -> Iterator[FileCheck]:
    known = isinstance(name_or_path, str) and name_or_path in registry.read_registry()
    label = str(name_or_path)
    try:
        pack = packs.find_pack(name_or_path)
    except PackNotFound as error:
        if not known:
            raise
        yield FileCheck(label, MANIFEST_NAME, False, False, error.message, error.hint)
        return
    except PackCorrupt as error:
        yield FileCheck(label, MANIFEST_NAME, True, False, error.message, error.hint)
        return
    for model in pack.manifest.models.values():
        try:
            packs.read_model(pack, model)
        except PackCorrupt as error:
            yield FileCheck(pack.name, model.file, True, False, error.message, error.hint)
        else:
            yield FileCheck(pack.name, model.file, True, True)
