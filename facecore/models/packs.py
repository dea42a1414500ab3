"""Finding a pack on this machine and loading it: nothing here ever uses the network."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from facecore.errors import InvalidParameter, PackCorrupt, PackNotFound
from facecore.models import registry
from facecore.models.adopt import adopted_packs
from facecore.models.manifest import (
    MANIFEST_NAME,
    AttributesSpec,
    DetectorSpec,
    EmbedderSpec,
    LivenessSpec,
    Manifest,
    ModelFile,
    contract_id,
    read_manifest,
)
from facecore.models.schema import is_pack_name

__all__ = ["LoadedPack", "Pack", "find_pack", "load_pack", "read_model"]

REINSTALL = "reinstall facecore: pip install --force-reinstall facecore"


def pull_command(name: str) -> str:
    """Return the command line that installs the pack `name`."""
    return f"facecore weights pull {name}"


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack that is installed on this machine.

    Parameters
    ----------
    manifest : Manifest
        What the pack says about its models.
    folder : Path
        Where the model files are, but for those that it shares; see `path`.
    hint : str
        What to do when one of its files turns out to be wrong.
    """

    manifest: Manifest
    folder: Path
    hint: str = field(default="restore the file, or pull the pack again", repr=False)

    @property
    def name(self) -> str:
        """Name of the pack."""
        return self.manifest.name

    @property
    def detector(self) -> DetectorSpec:
        """The detector's part of the manifest."""
        return self.manifest.detector

    @property
    def embedder(self) -> EmbedderSpec:
        """The embedder's part of the manifest."""
        return self.manifest.embedder

    @property
    def liveness(self) -> LivenessSpec | None:
        """The liveness classifier's part of the manifest; None where the pack has none."""
        return self.manifest.liveness

    @property
    def attributes(self) -> AttributesSpec | None:
        """The part of the manifest on age and gender; None where the pack has none."""
        return self.manifest.attributes

    def path(self, model: ModelFile) -> Path:
        """Where the file of one of its models is."""
        return _path(self.manifest, self.folder, model)

    @property
    def contract_id(self) -> str:
        """Identity of the embedder's vector space; see `facecore.models.manifest.contract_id`."""
        return contract_id(self.manifest.embedder)


@dataclass(frozen=True, slots=True)
class LoadedPack:
    """A pack and the bytes of its models, whose SHA-256 was checked.

    Parameters
    ----------
    pack : Pack
        The pack.
    detector, embedder : bytes
        ONNX models; the very bytes that were hashed, so give these to ONNX Runtime and never
        the path.
    liveness : bytes, optional
    attributes : bytes, optional
        None where the pack has no such model.
    """

    pack: Pack
    detector: bytes = field(repr=False)
    embedder: bytes = field(repr=False)
    liveness: bytes | None = field(default=None, repr=False)
    attributes: bytes | None = field(default=None, repr=False)


def find_pack(name_or_path: str | os.PathLike[str]) -> Pack:
    """Find a pack on this machine, without a network and without hashing its files.

    Parameters
    ----------
    name_or_path : str or PathLike
        A PathLike, or a string with a path separator, is a pack's folder. Any other string is
        a name: looked up among the packs inside facecore, then among the pulled ones, and
        last as a folder here. A known name therefore never means a folder of that name in
        the working directory; write ``./name`` for that.

    Returns
    -------
    Pack
        Its manifest is valid and its files exist.

    Raises
    ------
    PackNotFound
        There is no such pack; for a known one that was not pulled, the hint is the command
        that pulls it.
    PackCorrupt
        The manifest is not valid, or a model file is missing.
    """
    if not isinstance(name_or_path, str):
        return _from_folder(_as_path(name_or_path))
    if re.search(r"[/\\]", name_or_path):
        return _from_folder(Path(name_or_path).expanduser())
    if is_pack_name(name_or_path):
        pack = _from_name(name_or_path)
        if pack is not None:
            return pack
    if name_or_path and (Path(name_or_path) / MANIFEST_NAME).is_file():
        return _from_folder(Path(name_or_path))
    known = ", ".join((*registry.read_registry(), *adopted_packs()))
    raise PackNotFound(
        f"there is no pack named {name_or_path!r:.80}",
        f"known packs: {known}; make one of your own files: facecore weights adopt FOLDER",
    )


def load_pack(name_or_path: str | os.PathLike[str] | Pack) -> LoadedPack:
    """Find a pack and read its models, checking size and SHA-256 of each.

    Raises
    ------
    PackNotFound
        As `find_pack`.
    PackCorrupt
        As `find_pack`, or a file is not the one that was published.
    """
    pack = name_or_path if isinstance(name_or_path, Pack) else find_pack(name_or_path)
    return LoadedPack(
        pack,
        read_model(pack, pack.detector),
        read_model(pack, pack.embedder),
        None if pack.liveness is None else read_model(pack, pack.liveness),
        None if pack.attributes is None else read_model(pack, pack.attributes),
    )


def read_model(pack: Pack, model: ModelFile) -> bytes:
    """Read one model of a pack, once, and return the bytes if they are the published ones.

    Raises
    ------
    PackCorrupt
        The file is missing, or differs from the manifest in size or SHA-256.
    """
    path = pack.path(model)
    try:
        if not path.is_file():  # neither a folder nor a pipe, which would block the read
            raise PackCorrupt(f"{path}: the model file is missing", pack.hint)
        with path.open("rb") as stream:
            # One more byte than expected: enough to see that a file is too long.
            data = stream.read(model.size + 1)
    except OSError as error:
        raise PackCorrupt(f"{path}: cannot be read: {error.strerror}", pack.hint) from error
    if len(data) != model.size:
        found = f"{len(data)}" if len(data) < model.size else f"more than {model.size}"
        raise PackCorrupt(f"{path}: expected {model.size} bytes, found {found}", pack.hint)
    digest = hashlib.sha256(data).hexdigest()
    if digest != model.sha256:
        problem = f"SHA-256 is {digest[:12]}…, expected {model.sha256[:12]}…"
        raise PackCorrupt(f"{path}: {problem}", pack.hint)
    return data


def missing_files(manifest: Manifest, folder: Path) -> list[str]:
    """Return the names of the model files that are neither in `folder` nor shared."""
    models = manifest.models.values()
    return [model.file for model in models if not _path(manifest, folder, model).is_file()]


def _path(manifest: Manifest, folder: Path, model: ModelFile) -> Path:
    if model.folder is not None:
        return Path(model.folder) / model.file
    own = folder / model.file
    if manifest.shares is None or own.is_file():
        return own
    return folder.parent / manifest.shares / model.file


def _as_path(value: object) -> Path:
    try:
        return Path(value)  # type: ignore[arg-type]  # the except clause is the check
    except TypeError:
        raise InvalidParameter(
            f"a pack is a name or a folder, got {type(value).__name__}", 'for example "compact"'
        ) from None


def _from_folder(folder: Path) -> Pack:
    if not (folder / MANIFEST_NAME).is_file():
        raise PackNotFound(
            f"{folder} is not a pack: it has no {MANIFEST_NAME}",
            "give a folder that has one; of ONNX files make one: facecore weights adopt FOLDER",
        )
    return _complete(Pack(read_manifest(folder / MANIFEST_NAME), folder))


def _from_name(name: str) -> Pack | None:
    entry = registry.read_registry().get(name)
    if entry is None:  # not published by facecore, but adopted, or put there by hand
        cached = registry.cache_root() / name
        if not (cached / MANIFEST_NAME).is_file():
            return None
        again = f"restore the file, or adopt it again: facecore weights adopt FILE --name {name}"
        return _complete(Pack(_named(cached / MANIFEST_NAME, name), cached, again))
    shipped = registry.shipped_root() / name
    if not (shipped / MANIFEST_NAME).is_file():
        raise PackNotFound(f"the pack {name} is not part of this installation", REINSTALL)
    # The manifest inside facecore rules, not a copy in the cache: it is the one that was
    # published with this version, and its calibration may be newer than the pull.
    manifest = _named(shipped / MANIFEST_NAME, name)
    if not missing_files(manifest, shipped):
        again = f"remove the model files from {shipped}, then {pull_command(name)}"
        return Pack(manifest, shipped, REINSTALL if entry.shipped else again)
    if entry.shipped:
        return _complete(Pack(manifest, shipped, REINSTALL))
    cached = registry.cache_root() / name
    if not cached.is_dir():
        raise PackNotFound(f"the pack {name} is not on this machine", pull_command(name))
    return _complete(Pack(manifest, cached, pull_command(name)))


def _named(path: Path, name: str) -> Manifest:
    manifest = read_manifest(path)
    if manifest.name != name:
        raise PackCorrupt(f"{path}: name: is {manifest.name!r}, the folder says {name!r}")
    return manifest


def _complete(pack: Pack) -> Pack:
    for model in pack.manifest.models.values():
        if not (path := pack.path(model)).is_file():
            raise PackCorrupt(f"{path}: the model file is missing", pack.hint)
    return pack
