"""Lazy import of packages from extras."""

from __future__ import annotations

import importlib
from typing import Any

from facecore.errors import MissingExtra

__all__ = ["require_extra"]

# Module -> distribution name, if they differ.
_PACKAGES = {"sklearn": "scikit-learn", "milvus_lite": "milvus-lite"}


def require_extra(module: str, extra: str = "evaluation") -> Any:
    """Import a module that an extra of facecore installs.

    Raises
    ------
    MissingExtra
        The module is missing or cannot be loaded; the hint is the install command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        absent = isinstance(error, ModuleNotFoundError)
        problem = "is not installed" if absent else f"cannot be loaded: {error}"
        raise MissingExtra(
            f"{_PACKAGES.get(top, top)} {problem}", f"pip install 'facecore[{extra}]'"
        ) from error
