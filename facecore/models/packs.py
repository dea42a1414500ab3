"""Find and load a pack on this machine, without the network."""

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
    """An installed pack.

    Parameters
    ----------
    manifest : Manifest
        Description of the models.
    folder : Path
        Folder of the model files, except shared ones; see `path`.
    hint : str
        Error hint for a damaged model file.
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
        """The manifest's detector section."""
        return self.manifest.detector

    @property
    def embedder(self) -> EmbedderSpec:
        """The manifest's embedder section."""
        return self.manifest.embedder

    @property
    def liveness(self) -> LivenessSpec | None:
        """The manifest's liveness section, or None."""
        return self.manifest.liveness

    @property
    def runs_liveness(self) -> bool:
        """Whether the pack has a liveness model that this version runs."""
        return self.liveness is not None and self.liveness.is_runnable

    @property
    def attributes(self) -> AttributesSpec | None:
        """The manifest's age and gender section, or None."""
        return self.manifest.attributes

    def path(self, model: ModelFile) -> Path:
        """Return the path of a model's file."""
        return _path(self.manifest, self.folder, model)

    @property
    def contract_id(self) -> str:
        """Identifier of the embedder's vector space; see `facecore.models.manifest.contract_id`."""
        return contract_id(self.manifest.embedder)


@dataclass(frozen=True, slots=True)
class LoadedPack:
    """A pack and the bytes of its models, verified by SHA-256.

    Parameters
    ----------
    pack : Pack
        The pack.
    detector, embedder : bytes
        ONNX models.  Pass these verified bytes to ONNX Runtime, never the path.
    liveness : bytes, optional
    attributes : bytes, optional
        None if the pack has no such model.
    """

    pack: Pack
    detector: bytes = field(repr=False)
    embedder: bytes = field(repr=False)
    liveness: bytes | None = field(default=None, repr=False)
    attributes: bytes | None = field(default=None, repr=False)


def find_pack(name_or_path: str | os.PathLike[str]) -> Pack:
    """Find a pack on this machine, without network access and without hashing its files.

    Parameters
    ----------
    name_or_path : str or PathLike
        A PathLike, or a string with a path separator, is a pack's folder. Any other string is
        a name, looked up among the shipped packs, then the pulled packs, then the folders in
        the working directory. To open a folder that has the name of a known pack, write
        ``./name``.

    Returns
    -------
    Pack
        Its manifest is valid and its files exist.

    Raises
    ------
    PackNotFound
        There is no such pack. For a known pack that was not pulled, the hint is the command
        that pulls it.
    PackCorrupt
        The manifest is invalid, or a model file is missing.
    """
    if not isinstance(name_or_path, str):
        return _from_folder(_as_path(name_or_path))
    if re.search(r"[/\\]", name_or_path):
        return _from_folder(Path(os.path.expanduser(name_or_path)))
    if is_pack_name(name_or_path):
        pack = _from_name(name_or_path)
        if pack is not None:
            return pack
    if name_or_path and os.path.isfile(Path(name_or_path) / MANIFEST_NAME):
        return _from_folder(Path(name_or_path))
    known = ", ".join((*registry.read_registry(), *adopted_packs()))
    raise PackNotFound(
        f"there is no pack named {name_or_path!r:.80}",
        f"known packs: {known}; make a pack of your own files: facecore weights adopt FOLDER",
    )


def load_pack(name_or_path: str | os.PathLike[str] | Pack) -> LoadedPack:
    """Find a pack, read its models and verify their size and SHA-256.

    Raises
    ------
    PackNotFound
        As `find_pack`.
    PackCorrupt
        As `find_pack`, or a model file differs from the manifest in size or SHA-256.
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
    """Read a model file once and return its verified bytes.

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
            # One extra byte reveals a file that is too long.
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
    """Return the names of the model files found neither in `folder` nor in the shared pack."""
    models = manifest.models.values()
    return [model.file for model in models if not os.path.isfile(_path(manifest, folder, model))]


def _path(manifest: Manifest, folder: Path, model: ModelFile) -> Path:
    if model.folder is not None:
        return Path(model.folder) / model.file
    own = folder / model.file
    if manifest.shares is None or os.path.isfile(own):
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
    if not os.path.isfile(folder / MANIFEST_NAME):
        raise PackNotFound(
            f"{folder} is not a pack: it has no {MANIFEST_NAME}",
            "give a pack's folder, or make a pack of ONNX files: facecore weights adopt FOLDER",
        )
    return _complete(Pack(read_manifest(folder / MANIFEST_NAME), folder))


def _from_name(name: str) -> Pack | None:
    entry = registry.read_registry().get(name)
    if entry is None:  # adopted, or copied into the cache by hand
        cached = registry.cache_root() / name
        if not os.path.isfile(cached / MANIFEST_NAME):
            return None
        again = f"restore the file, or adopt it again: facecore weights adopt FILE --name {name}"
        return _complete(Pack(_named(cached / MANIFEST_NAME, name), cached, again))
    shipped = registry.shipped_root() / name
    if not os.path.isfile(shipped / MANIFEST_NAME):
        raise PackNotFound(f"the pack {name} is not part of this installation", REINSTALL)
    # The shipped manifest takes precedence over the cached copy: its calibration may be newer.
    manifest = _named(shipped / MANIFEST_NAME, name)
    if not missing_files(manifest, shipped):
        again = f"remove the model files from {shipped}, then {pull_command(name)}"
        return Pack(manifest, shipped, REINSTALL if entry.shipped else again)
    if entry.shipped:
        return _complete(Pack(manifest, shipped, REINSTALL))
    cached = registry.cache_root() / name
    if not os.path.isdir(cached):
        raise PackNotFound(f"the pack {name} is not on this machine", pull_command(name))
    return _complete(Pack(manifest, cached, pull_command(name)))


def _named(path: Path, name: str) -> Manifest:
    manifest = read_manifest(path)
    if manifest.name != name:
        raise PackCorrupt(f"{path}: name: is {manifest.name!r}, the folder is {name!r}")
    return manifest


def _complete(pack: Pack) -> Pack:
    for model in pack.manifest.models.values():
        # Path.is_file raises PermissionError for a file in a folder that cannot be entered.
        if not os.path.isfile(path := pack.path(model)):
            raise PackCorrupt(f"{path}: the model file is missing or cannot be reached", pack.hint)
    return pack
