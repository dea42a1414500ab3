"""Pull a pack: with `download`, the only code in `facecore.models` that uses the network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facecore._utils import atomic_files
from facecore.errors import PackCorrupt, PackNotFound
from facecore.models import packs, registry
from facecore.models.manifest import MANIFEST_NAME, Manifest, ModelFile, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from facecore.models.registry import RegistryEntry

__all__ = ["PullResult", "pull"]


@dataclass(frozen=True, slots=True)
class PullResult:
    """Result of `pull`: folder of the pack and downloaded bytes (0 if already installed)."""

    name: str
    folder: Path
    downloaded: int


def pull(name: str, *, progress: bool = True) -> PullResult:
    """Download a known pack into the cache, unless it is already installed.

    The operation is atomic: files are streamed into a temporary folder, checked against the
    sizes and hashes in facecore, synced, and renamed into place. Of two concurrent pulls, the
    second waits and finds the pack installed.

    Parameters
    ----------
    name : str
        A name of `list_packs`.
    progress : bool
        Show a progress bar on standard error.

    Raises
    ------
    PackNotFound
        The name is unknown, the download failed, or the cache is not writable.
    PackCorrupt
        The download differs from the published files. Nothing is kept.
    """
    entry = registry.read_registry().get(name)
    if entry is None:
        known = ", ".join(registry.read_registry())
        raise PackNotFound(f"there is no pack named {name!r:.80}", f"known packs: {known}")
    if entry.shipped:
        pack = packs.load_pack(name).pack
        return PullResult(name, pack.folder, 0)
    source = registry.shipped_root() / name / MANIFEST_NAME
    manifest = read_manifest(source)
    for model in manifest.models.values():
        if model.file not in entry.files:
            raise PackCorrupt(f"registry.toml: {name}: files.{model.file}: missing field")
    installed = _sound_pack(name)
    if installed is not None:
        return PullResult(name, installed.folder, 0)
    target = registry.cache_root() / name
    try:
        with atomic_files.exclusive(target):
            installed = _sound_pack(name)  # another process may have installed it
            if installed is not None:
                return PullResult(name, installed.folder, 0)
            with atomic_files.staged(target) as folder:
                atomic_files.write_new(folder / MANIFEST_NAME, [source.read_bytes()])
                count = _download(manifest, entry, folder, progress)
                atomic_files.publish(folder, target, lambda: _sound_pack(name) is not None)
    except OSError as error:
        raise PackNotFound(
            f"the pack {name} cannot be stored in {target}: {error.strerror or error}",
            f"point {registry.CACHE_VARIABLE} at a folder that you can write to",
        ) from error
    return PullResult(name, target, count)


def _download(manifest: Manifest, entry: RegistryEntry, folder: Path, progress: bool) -> int:
    # Imported here: only a download needs them.
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    from facecore.models.download import published_bytes

    total = sum(model.size for model in manifest.models.values())
    bar = tqdm(
        total=total,
        desc=manifest.name,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=not progress,
    )
    with bar:
        for model in manifest.models.values():
            chunks = published_bytes(model, entry.files[model.file])
            atomic_files.write_new(folder / model.file, _checked(chunks, model, bar.update))
    return total


def _checked(
    chunks: Iterator[bytes], model: ModelFile, advance: Callable[[int], object]
) -> Iterator[bytes]:
    """Pass chunks on while hashing them; raise at the end if the hash is wrong."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
        advance(len(chunk))
    if digest.hexdigest() != model.sha256:
        raise PackCorrupt(
            f"{model.file}: SHA-256 is {digest.hexdigest()[:12]}…, "
            f"expected {model.sha256[:12]}…; nothing was kept",
            "pull again; if it repeats, the source does not hold the published file",
        )


def _sound_pack(name: str) -> packs.Pack | None:
    try:
        return packs.load_pack(name).pack
    except (PackNotFound, PackCorrupt):
        return None
