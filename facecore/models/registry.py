"""Where packs live, and ``registry.toml``: the packs that facecore knows by name."""

from __future__ import annotations

import os
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from facecore.errors import PackNotFound
from facecore.models.schema import is_file_name, is_pack_name, parse, read_toml, require

if TYPE_CHECKING:
    from collections.abc import Mapping

REGISTRY_NAME = "registry.toml"
CACHE_VARIABLE = "FACECORE_CACHE"
DEFAULT_PACK = "compact"


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """One pack that facecore knows.

    Parameters
    ----------
    name, summary : str
        What it is called, and one line about it.
    shipped : bool
        Whether its models travel inside the facecore package.
    files : mapping of str to str
        For a pack that is pulled: file name -> HTTPS address at a pinned commit.
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
    """A whole ``registry.toml``."""

    format: int
    packs: tuple[RegistryEntry, ...]

    def __post_init__(self) -> None:
        require(self.format == 1, "format", "must be 1; a newer facecore may know this one")
        names = [entry.name for entry in self.packs]
        require(len(set(names)) == len(names), "packs", "names must differ from each other")


def shipped_root() -> Path:
    """Return the folder that holds ``registry.toml`` and one folder per known pack.

    Inside an installed package that is ``facecore/weights``; in a source checkout or an
    editable install it is ``weights`` beside the package.

    Raises
    ------
    PackNotFound
        Neither exists: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent.parent
    # Installed first: whatever lies beside an installed package is not facecore's.
    for root in (package / "weights", package.parent / "weights"):
        if (root / REGISTRY_NAME).is_file():
            return root
    raise PackNotFound(
        f"this installation of facecore has no {REGISTRY_NAME}", "reinstall facecore"
    )


def cache_root() -> Path:
    """Return the folder for pulled packs: ``$FACECORE_CACHE`` or the user's cache, + ``packs``."""
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override).expanduser().absolute() / "packs"
    import platformdirs  # a shipped pack needs it not

    return platformdirs.user_cache_path("facecore", appauthor=False) / "packs"


def read_registry() -> Mapping[str, RegistryEntry]:
    """Read the registry: name -> entry, in the order of the file.

    Raises
    ------
    PackCorrupt
        Names the field of ``registry.toml`` that is wrong.
    """
    path = shipped_root() / REGISTRY_NAME
    registry = parse(Registry, read_toml(path), path)
    return MappingProxyType({entry.name: entry for entry in registry.packs})


def _is_plain_https(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        # Without credentials, query and fragment: an address at a pinned commit needs none.
        return (
            parts.scheme == "https"
            and bool(parts.hostname)
            and url == parts._replace(netloc=parts.hostname or "", query="", fragment="").geturl()
        )
    except ValueError:
        return False
