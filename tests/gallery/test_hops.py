"""Limit how many files of facecore one call enters, because a reader must follow them all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import facecore
from facecore import FaceEngine, Gallery

ROOT = str(Path(facecore.__file__).parent)


def entered(call: Callable[[], object]) -> set[str]:
    """Return the files of facecore in which a function ran."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return {name for name in files if name.startswith(ROOT)}


@pytest.mark.usefixtures("no_sync")
def test_few_files_are_entered(compact: FaceEngine, astronaut: Any, folder: Path) -> None:
    with Gallery(folder, compact) as gallery:
        gallery.create_group("staff")
        sample = compact.sample(astronaut)
        gallery.add("staff", sample, "u0")
        gallery.search(sample)  # imports, and builds the index
        added = entered(lambda: gallery.add("staff", astronaut, "u1"))
        gallery.search(sample)
        searched = entered(lambda: gallery.search(sample))
    assert len(added) <= 25, added
    assert len(searched) <= 16, searched
    assert f"{ROOT}/gallery/gallery.py" in added & searched
