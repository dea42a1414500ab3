"""The packages of the extras, imported only where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from facecore.errors import MissingExtra

__all__ = ["require_extra"]

# As it is named where it is installed from.
_PACKAGES = {"sklearn": "scikit-learn", "milvus_lite": "milvus-lite"}


def require_extra(module: str, extra: str = "evaluation") -> Any:
    """Import a module that an extra of facecore brings.

    Raises
    ------
    MissingExtra
        It is not installed, or cannot be loaded; the hint is the command that installs it.
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
