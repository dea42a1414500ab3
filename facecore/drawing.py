"""Draw detection and quality results on pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore._utils.atomic_files import write_whole
from facecore.errors import InvalidParameter
from facecore.face.alignment import warp
from facecore.face.detection import Face
from facecore.face.quality import HIGH_FROM, LOW_BELOW, Quality
from facecore.images.quiet import quiet

__all__ = ["AMBER", "GREEN", "RED", "draw_faces", "draw_quality", "square_around", "write_image"]

_log = logging.getLogger(__name__)

GREEN, AMBER, RED = (96, 200, 64), (48, 170, 240), (64, 64, 230)  # BGR

_Box = tuple[float, float, float, float]  # left, top, right, bottom


def draw_faces(
    image: NDArray[np.uint8],
    faces: Sequence[Face],
    colour: tuple[int, int, int] = GREEN,
    labels: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Draw the box, the landmarks and a label of each face on a copy of a picture.

    Labels stay inside the picture; long ones are truncated with an ellipsis.  A label that would
    cover an earlier one is written below its box.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        BGR.
    faces : sequence of Face
    colour : tuple of int
        BGR, 0..255.
    labels : sequence of str, optional
        One for each face, in any script that an installed font supports; the detector's
        confidence by default.

    Raises
    ------
    InvalidParameter
        The number of labels differs from the number of faces.
    """
    import cv2

    if labels is not None and len(labels) != len(faces):
        raise InvalidParameter(f"{len(labels)} labels were given for {len(faces)} faces")
    drawn = np.ascontiguousarray(image).copy()
    thickness = max(1, round(max(drawn.shape[:2]) / 400))
    for face in faces:
        x1, y1, x2, y2 = (round(float(v)) for v in face.box)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)
        for x, y in face.landmarks:
            centre = (round(float(x)), round(float(y)))
            cv2.circle(drawn, centre, 2 * thickness, colour, -1, cv2.LINE_AA)
    texts = [f"{face.confidence:.2f}" for face in faces] if labels is None else labels
    return _write_labels(drawn, faces, texts, colour, 14 * thickness)


def _write_labels(
    image: NDArray[np.uint8],
    faces: Sequence[Face],
    texts: Sequence[str],
    colour: tuple[int, int, int],
    size: int,
) -> NDArray[np.uint8]:
    """Write white labels on `colour`, each above or below its box, inside the picture."""
    from PIL import Image, ImageDraw

    height, width = image.shape[:2]
    canvas = Image.fromarray(image[..., ::-1])
    pen = ImageDraw.Draw(canvas)
    pad = max(1, size // 6)
    taken: list[_Box] = []
    for face, text in zip(faces, texts, strict=True):
        font, text = _font(" ".join(text.split()), size)
        full = text
        while len(full) > 1 and pen.textlength(text, font) + 2 * pad > width:
            full = full[:-1]
            text = full + ("…" if _has(font, "…") else "...")
        left, top, right, bottom = pen.textbbox((0, 0), text, font)
        wide, high = right - left + 2 * pad, bottom - top + 2 * pad
        x = min(max(float(face.box[0]), 0), max(width - wide, 0))
        places = [
            min(max(edge, 0), max(height - high, 0))
            for edge in (float(face.box[1]) - high, float(face.box[3]))
        ]
        y = next((y for y in places if not _meets((x, y, x + wide, y + high), taken)), places[0])
        taken.append((x, y, x + wide, y + high))
        pen.rectangle((x, y, x + wide, y + high), fill=colour[::-1])
        pen.text((x + pad - left, y + pad - top), text, (255, 255, 255), font)
    return np.ascontiguousarray(np.asarray(canvas)[..., ::-1])


def _meets(box: _Box, others: Sequence[_Box]) -> bool:
    x1, y1, x2, y2 = box
    return any(x1 < o[2] and o[0] < x2 and y1 < o[3] and o[1] < y2 for o in others)


def _font(text: str, size: int) -> tuple[Any, str]:
    """Return a font that supports the text, and the text, escaped if no font does."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    if _has(font, text):
        return font, text
    for path in _system_fonts():
        try:
            other = ImageFont.truetype(path, size)
        except OSError:
            continue
        if _has(other, text):
            return other, text
    escaped = text.encode("ascii", "backslashreplace").decode()
    _log.warning("no installed font can write %s: install one, such as Noto", escaped)
    return font, escaped


def _has(font: Any, text: str) -> bool:
    """Whether a font has every glyph: missing ones render like private-use characters."""
    missing = bytes(font.getmask("\uf8f0")), bytes(font.getmask("\U0010fffd"))
    return not any(bytes(font.getmask(c)) in missing for c in set(text) if not c.isspace())


@cache
def _system_fonts() -> tuple[str, ...]:
    """Paths of the fonts in the standard folders of the operating systems."""
    folders = [
        "/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts",
        "/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts",
        os.path.join(os.environ.get("WINDIR", "C:\\Windows"), "Fonts"),
    ]  # fmt: skip
    found = [
        str(path)
        for folder in folders
        for path in sorted(Path(os.path.expanduser(folder)).rglob("*"))
        if path.suffix.lower() in (".ttf", ".otf", ".ttc")
    ]
    # Prefer upright fonts of regular weight and width, then sans-serif fonts.
    special = ("Bold", "Italic", "Oblique", "Light", "Thin", "Condensed", "Narrow", "Mono")
    return tuple(sorted(found, key=lambda p: (any(w in p for w in special), "Sans" not in p)))


def square_around(
    image: NDArray[np.uint8], face: Face, extent: float, side: int
) -> tuple[NDArray[np.uint8], Face]:
    """Cut a square around a face, without aliasing, and move the face into it.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
    face : Face
    extent : float
        Side of the square in pixels of `image`.
    side : int
        Side of the result in pixels.

    Returns
    -------
    crop : ndarray, shape (side, side, 3), uint8
        Black outside the image.
    moved : Face
        In pixels of `crop`.
    """
    scale = side / float(extent)
    shift = (side - scale * (face.box[:2] + face.box[2:])) / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    moved = Face(
        (face.box * scale + np.tile(shift, 2)).astype(np.float32),
        (face.landmarks * scale + shift).astype(np.float32),
        face.confidence,
    )
    return warp(image, matrix, (side, side)), moved


def draw_quality(image: NDArray[np.uint8], face: Face, quality: Quality) -> NDArray[np.uint8]:
    """Draw a face, its box coloured by quality level, next to a bar chart of the measures.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        BGR.
    face : Face
    quality : Quality
        Quality of `face`.

    Returns
    -------
    ndarray, shape (h, w, 3), uint8
        A square crop around the face, with the bars to its right.
    """
    import cv2

    row, width = 20, 330
    side = 60 + row * len(quality.measures)
    # Twice the size of the face shows the surroundings.
    panel, moved = square_around(image, face, 2.0 * max(face.size, 1.0), side)
    left = draw_faces(panel, [moved], _traffic_light(quality.score), [quality.level])
    chart = np.full((side, width, 3), 255, np.uint8)

    def write(text: str, y: int, size: float) -> None:
        cv2.putText(
            chart, text, (10, y), cv2.FONT_HERSHEY_SIMPLEX, size, (40, 40, 40), 1, cv2.LINE_AA
        )

    write(f"{quality.level}  {quality.score:.0f}", 30, 0.8)
    for i, (name, value) in enumerate(quality.measures.items()):
        y = 56 + i * row
        write(name.replace("_", " "), y, 0.4)
        end = 190 + round(1.25 * value)
        cv2.rectangle(chart, (190, y - 9), (315, y), (225, 225, 225), -1)
        cv2.rectangle(chart, (190, y - 9), (end, y), _traffic_light(value), -1)
    return np.hstack([left, chart])


def _traffic_light(score: float) -> tuple[int, int, int]:
    return GREEN if score >= HIGH_FROM else RED if score < LOW_BELOW else AMBER


def write_image(path: Path | str, image: NDArray[np.uint8]) -> None:
    """Write a picture atomically, in the format of its file extension.

    Raises
    ------
    InvalidParameter
        The format is unknown or cannot hold this picture, or the file cannot be written.
    """
    import cv2

    path = Path(path)
    # OpenCV crashes at a suffix that is not UTF-8.
    if not path.suffix.isascii() or not cv2.haveImageWriter(path.suffix):
        raise InvalidParameter(
            f"{path.name!r} does not have the extension of a picture format", "use .png or .jpg"
        )
    try:
        with quiet:
            written, coded = cv2.imencode(path.suffix, image)
    except cv2.error:
        written = False
    if not written:
        height, width = image.shape[:2]
        raise InvalidParameter(
            f"{path.name!r} cannot hold this picture of {width:,}×{height:,} pixels", "use .png"
        )
    write_whole(path, coded.tobytes())
