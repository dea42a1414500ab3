"""List and verify the packs on this machine."""

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
    """Description of a pack, as shown by ``facecore weights list``.

    Parameters
    ----------
    name, summary : str
        From the registry; for an adopted pack, from its manifest.
    shipped : bool
        Whether the pack is part of the facecore package; otherwise it is pulled.
    installed : bool
        Whether all files are present with the right sizes. `verify` also hashes them.
    folder : Path or None
        Folder of the installed pack.
    size : int
        Total size of the models, in bytes.
    manifest : Manifest or None
        Its ``models`` hold licences, sources, training data and caveats.
    problem : str
        Why the manifest or a model file is unusable; empty if there is no problem.
    adopted : bool
        Whether the pack was made from the user's files.
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
    """Result of verifying one file of a pack.

    Parameters
    ----------
    pack : str
        Name of the pack.
    file : str
        Name of the file; the manifest's name if the pack cannot be read.
    installed : bool
        Whether the pack is on this machine. False is no error for a pack that was not pulled.
    ok : bool
        Whether the file exists and matches the manifest.
    problem : str
        Problem in one line; empty if `ok`.
    hint : str
        How to fix it; empty if `ok`.
    """

    pack: str
    file: str
    installed: bool
    ok: bool
    problem: str = ""
    hint: str = ""


def list_packs() -> tuple[PackInfo, ...]:
    """List all known and adopted packs, without hashing their files.

    Examples
    --------
    >>> import facecore
    >>> [pack.name for pack in facecore.list_packs() if pack.shipped]
    ['compact', 'compact-int8']
    """
    known = registry.read_registry()
    return tuple(_describe(name, known.get(name)) for name in (*known, *adopted_packs()))


def verify(name_or_path: str | os.PathLike[str] | None = None) -> tuple[FileCheck, ...]:
    """Verify the files of one pack, or of all packs, against the manifest by SHA-256.

    Parameters
    ----------
    name_or_path : str or PathLike, optional
        One pack; see `facecore.models.packs.find_pack`.  Default: all packs of `list_packs`.

    Returns
    -------
    tuple of FileCheck
        One per file; a single one for a pack that is not installed or has no valid manifest.

    Raises
    ------
    PackNotFound
        There is no pack of this name. A damaged pack is a result, not an error.
    """
    if name_or_path is None:
        names = (*registry.read_registry(), *adopted_packs())
        return tuple(check for name in names for check in _verify_one(name))
    return tuple(_verify_one(name_or_path))


def _describe(name: str, entry: RegistryEntry | None) -> PackInfo:
    """Describe a pack of the registry, or an adopted one if `entry` is None."""
    root = registry.shipped_root() if entry else registry.cache_root()
    manifest, problem, folder = None, "", None
    try:
        manifest = read_manifest(root / name / MANIFEST_NAME)
        folder = _whole(name)
        if folder is None and not entry:
            problem = "a model file is missing or has another size; adopt it again"
    except FacecoreError as error:
        problem = str(error)
    described = entry or manifest
    return PackInfo(
        name=name,
        summary=described.summary if described else "",
        shipped=entry is not None and entry.shipped,
        installed=folder is not None,
        folder=folder,
        size=sum(model.size for model in manifest.models.values()) if manifest else 0,
        manifest=manifest,
        problem=problem,
        adopted=entry is None,
    )


def _whole(name: str) -> Path | None:
    """Return the pack's folder if all files are present with the right sizes, else None."""
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
