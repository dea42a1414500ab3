"""Pulling a pack: the only code of facecore's models that uses the network."""

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
    """What `pull` did: where the pack is, and how many bytes came (0: it was here already)."""

    name: str
    folder: Path
    downloaded: int


def pull(name: str, *, progress: bool = True) -> PullResult:
    """Download a known pack into the cache, unless it is there already.

    The pack appears whole or not at all: files are streamed into a temporary folder, checked
    against the sizes and hashes that came with facecore, synced, and renamed into place. Two
    pulls at once wait for each other, and the second finds the work done.

    Parameters
    ----------
    name : str
        A name of `list_packs`.
    progress : bool
        Show a bar on standard error.

    Raises
    ------
    PackNotFound
        The name is unknown, the network failed, or the cache cannot be written.
    PackCorrupt
        What was downloaded is not what was published. Nothing of it is kept.
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
            installed = _sound_pack(name)  # another process may have finished meanwhile
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
    # Here and not above: listing and loading packs need neither of the two.
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
    """Pass bytes on, hash them on the way, and raise at the end if they are the wrong ones."""
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
