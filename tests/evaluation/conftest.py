"""A folder tree in the layout of LFW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from trees import FACELESS, variants, write

Array = np.ndarray[Any, Any]


@pytest.fixture
def tiny_lfw(tmp_path: Path, astronaut: Array, hopper: Array) -> Path:
    """Two folds of 2 + 2 pairs; H's fourth picture has no face."""
    for name, image in (("A", astronaut[:300, 75:375]), ("H", hopper[60:460, 60:460])):
        for i, picture in enumerate(variants(image), start=1):
            small = cv2.resize(picture, (250, 250), interpolation=cv2.INTER_AREA)
            write(tmp_path / "images" / name / f"{name}_{i:04d}.jpg", np.asarray(small))
    write(tmp_path / "images" / "H" / "H_0004.jpg", FACELESS)
    (tmp_path / "pairs.txt").write_text(
        "2 2\nA 1 2\nH 1 2\nA 1 H 1\nA 2 H 3\nA 3 4\nH 3 4\nA 3 H 2\nA 4 H 1\n"
    )
    return tmp_path
