"""Write, publish and remove packs of a user's models in the cache."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facecore._utils import atomic_files
from facecore.errors import InvalidParameter, PackNotFound
from facecore.models import registry
from facecore.models.calibration_file import calibration_lines
from facecore.models.manifest import MANIFEST_NAME, Manifest, read_manifest
from facecore.models.schema import is_pack_name
from facecore.models.specs import CalibrationSpec

__all__ = ["adopted_packs", "check_name", "manifest_text", "remove", "staged_pack"]


def check_name(name: str) -> None:
    """Reject an invalid pack name, or the name of a facecore pack.

    Raises
    ------
    InvalidParameter
    """
    if not is_pack_name(name):
        raise InvalidParameter(
            f"{name!r:.80} cannot name a pack", "use lower-case letters, digits, _ and -"
        )
    if name in registry.read_registry():
        raise InvalidParameter(f"{name} is a pack of facecore", "give another name: --name NAME")


def adopted_packs() -> tuple[str, ...]:
    """Return the sorted names of the cached packs that are not in the registry."""
    known, root = registry.read_registry(), registry.cache_root()
    try:
        found = sorted(
            entry.name for entry in root.iterdir() if os.path.isfile(entry / MANIFEST_NAME)
        )
    except OSError:
        return ()
    return tuple(name for name in found if is_pack_name(name) and name not in known)


@contextmanager
def staged_pack(name: str) -> Iterator[tuple[Path, Callable[[], Path]]]:
    """Provide a temporary folder for a new pack, and a function that publishes it to the cache.

    Nothing is kept unless the function is called.  It replaces a pack of the same name atomically.

    Raises
    ------
    InvalidParameter
        The cache is not writable.
    """
    target = registry.cache_root() / name
    try:
        with atomic_files.exclusive(target), atomic_files.staged(target) as folder:

            def publish() -> Path:
                read_manifest(folder / MANIFEST_NAME)
                for path in folder.iterdir():
                    atomic_files.sync(path)
                atomic_files.publish(folder, target, lambda: False)
                return target

            yield folder, publish
    except OSError as error:
        raise InvalidParameter(
            f"the pack {name} cannot be stored in {target}: {error.strerror or error}",
            f"point {registry.CACHE_VARIABLE} at a folder that you can write to",
        ) from error


def remove(name: str) -> Path:
    """Remove an adopted or pulled pack from the cache; keep model files outside the cache.

    Returns
    -------
    Path
        The removed folder.

    Raises
    ------
    PackNotFound
        The pack is not in the cache.
    InvalidParameter
        The pack ships with facecore, or the folder cannot be removed.
    """
    entry = registry.read_registry().get(name)
    if entry is not None and entry.shipped:
        raise InvalidParameter(f"the pack {name} ships with facecore and cannot be removed")
    target = registry.cache_root() / name
    if not is_pack_name(name) or not os.path.isdir(target):
        raise PackNotFound(
            f"there is no pack {name!r:.80} in {registry.cache_root()}",
            "list the packs: facecore weights list",
        )
    try:
        with atomic_files.exclusive(target):
            aside = target.parent / f".{target.name}.tmp-removed"
            atomic_files.remove(aside)
            target.rename(aside)
            atomic_files.remove(aside)
    except OSError as error:
        raise InvalidParameter(f"{target} cannot be removed: {error.strerror or error}") from error
    return target


def manifest_text(manifest: Manifest) -> str:
    """Return a manifest as TOML; `read_manifest` reads an equal manifest from it."""
    lines = _fields(manifest)
    for role, model in manifest.models.items():
        lines += ["", f"[{role}]", *_fields(model)]
        for field in dataclasses.fields(model):
            value = getattr(model, field.name)
            section = f"{role}.{field.name}"
            if isinstance(value, CalibrationSpec):
                lines += ["", *calibration_lines(section, value)]
            elif dataclasses.is_dataclass(value) and not isinstance(value, type):
                lines += ["", f"[{section}]", *_fields(value)]
    return "\n".join(lines) + "\n"


def _fields(part: Any) -> list[str]:
    """Return the TOML lines of the fields that are not tables."""
    lines = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if value is not None and not dataclasses.is_dataclass(value):
            lines.append(f"{field.name} = {_value(value)}")
    return lines


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        table: Mapping[str, Any] = {
            f.name: getattr(value, f.name) for f in dataclasses.fields(value)
        }
        given = (f"{name} = {_value(item)}" for name, item in table.items() if item is not None)
        return "{ " + ", ".join(given) + " }"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)
