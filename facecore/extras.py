"""The packages of the extra ``plots``, imported only where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from facecore.errors import MissingExtra

__all__ = ["require_extra"]


def require_extra(module: str) -> Any:
    """Import a module of matplotlib or scikit-learn.

    Raises
    ------
    MissingExtra
        It is not installed; the hint is the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0].replace("sklearn", "scikit-learn")
        raise MissingExtra(
            f"{package} is not installed", "pip install 'facecore[plots]'"
        ) from error
