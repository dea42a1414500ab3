"""Photographs of two people, for the demo, the benchmark and the warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore import images
from facecore.drawing import GREEN, RED, draw_faces, square_around
from facecore.matching.comparison import Comparison

__all__ = ["PAIRS", "draw", "pictures", "read"]

PAIRS = {
    "the astronaut and the same picture, small, dark and mirrored": ("astronaut", "altered"),
    "the astronaut and Grace Hopper": ("astronaut", "hopper"),
}


def read(name: str) -> bytes:
    """Read the JPEG file of a photograph: ``"astronaut"`` or ``"hopper"``.

    The pictures of Eileen Collins (NASA) and Grace Hopper (US Navy) are in the public domain.
    """
    return files("facecore").joinpath(f"demo_pictures/{name}.jpg").read_bytes()


def pictures() -> dict[str, NDArray[np.uint8]]:
    """Return the demo pictures by name: shape (H, W, 3), uint8, BGR."""
    import cv2

    astronaut, hopper = (images.load(read(name)) for name in ("astronaut", "hopper"))
    small = cv2.resize(astronaut, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    altered = (small[:, ::-1] * 0.5).astype(np.uint8)
    return {
        "astronaut": astronaut,
        "altered": np.ascontiguousarray(altered),
        "hopper": hopper,
    }


def draw(
    named: Mapping[str, NDArray[np.uint8]], results: Mapping[str, Comparison]
) -> NDArray[np.uint8]:
    """Draw the compared pictures side by side, one row per comparison, with its score."""
    import cv2

    side = 360
    rows: list[Any] = []
    for title, result in results.items():
        colour = GREEN if result.passed else RED
        panels = []
        for name, face in zip(PAIRS[title], result.faces, strict=True):
            panel, moved = square_around(named[name], face, 2.2 * face.size, side)
            panels.append(draw_faces(panel, [moved], colour))
        row = np.hstack(panels)
        verdict = "same person" if result.passed else "not the same person"
        text = f"score {result.score:.1f}: {verdict}"
        band = np.full((44, row.shape[1], 3), 255, np.uint8)
        cv2.putText(band, text, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, 2, cv2.LINE_AA)
        rows += [row, band]
    return np.asarray(np.vstack(rows), np.uint8)
