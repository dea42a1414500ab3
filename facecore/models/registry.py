"""Locations of packs, and ``registry.toml``: the packs that facecore knows by name."""

from __future__ import annotations

import os
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from facecore._utils.atomic_files import absolute
from facecore.errors import PackNotFound
from facecore.models.schema import is_file_name, is_pack_name, parse, read_toml, require

if TYPE_CHECKING:
    from collections.abc import Mapping

REGISTRY_NAME = "registry.toml"
CACHE_VARIABLE = "FACECORE_CACHE"
DEFAULT_PACK = "compact"


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """A pack that facecore knows by name.

    Parameters
    ----------
    name, summary : str
        Name, and a one-line description.
    shipped : bool
        Whether the models are part of the facecore package.
    files : mapping of str to str
        For a pulled pack: file name -> HTTPS address at a pinned commit.
    """

    name: str
    summary: str
    shipped: bool
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(is_pack_name(self.name), "name", "must be lower-case letters, digits, _ and -")
        require(bool(self.summary.strip()), "summary", "must not be empty")
        if self.shipped:
            require(not self.files, "files", "a shipped pack has nothing to download")
        else:
            require(bool(self.files), "files", "a pack that is not shipped needs its addresses")
        for name, url in self.files.items():
            require(is_file_name(name), f"files.{name}", "must be a bare file name")
            require(_is_plain_https(url), f"files.{name}", "must be a plain https:// address")


@dataclass(frozen=True, slots=True)
class Registry:
    """Content of ``registry.toml``."""

    format: int
    packs: tuple[RegistryEntry, ...]

    def __post_init__(self) -> None:
        require(self.format == 1, "format", "must be 1; a newer facecore may know this one")
        names = [entry.name for entry in self.packs]
        require(len(set(names)) == len(names), "packs", "names must differ from each other")


def shipped_root() -> Path:
    """Return the folder that holds ``registry.toml`` and one folder per known pack.

    This is ``facecore/weights`` in an installed package, and ``weights`` next to the package in
    a source checkout or an editable install.

    Raises
    ------
    PackNotFound
        Neither folder exists: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent.parent
    # Inside first: a folder next to an installed package is not facecore's.
    for root in (package / "weights", package.parent / "weights"):
        if (root / REGISTRY_NAME).is_file():
            return root
    raise PackNotFound(
        f"this installation of facecore has no {REGISTRY_NAME}", "reinstall facecore"
    )


def cache_root() -> Path:
    """Return the folder of pulled packs: ``packs`` in ``$FACECORE_CACHE`` or the user's cache."""
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return absolute(Path(os.path.expanduser(override))) / "packs"
    import platformdirs  # not needed for shipped packs

    return platformdirs.user_cache_path("facecore", appauthor=False) / "packs"


def read_registry() -> Mapping[str, RegistryEntry]:
    """Read the registry: name -> entry, in file order.

    Raises
    ------
    PackCorrupt
        ``registry.toml`` is invalid; the message names the field.
    """
    path = shipped_root() / REGISTRY_NAME
    registry = parse(Registry, read_toml(path), path)
    return MappingProxyType({entry.name: entry for entry in registry.packs})


def _is_plain_https(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        # No credentials, query or fragment: an address at a pinned commit needs none.
        return (
            parts.scheme == "https"
            and bool(parts.hostname)
            and url == parts._replace(netloc=parts.hostname or "", query="", fragment="").geturl()
        )
    except ValueError:
        return False
