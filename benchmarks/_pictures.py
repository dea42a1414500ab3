"""Pictures for the speed benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks._measuring import DATA
from facecore import FaceEngine
from facecore.demo import pictures

Pixels = np.ndarray[Any, Any]


def portraits(most: int) -> tuple[bytes, bytes]:
    """Return two 960x720 portraits, each in the best quality that fits in `most` bytes."""
    named = pictures()
    cuts = (named["astronaut"][:, 64:448], named["hopper"][:, 31:481])
    first, second = (_encoded(cv2.resize(cut, (720, 960)), most) for cut in cuts)
    return first, second


def _encoded(pixels: Any, most: int) -> bytes:
    for quality in range(95, 10, -1):
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= most:
            return data
    raise SystemExit(f"no JPEG of {most} bytes can be made")


def london() -> list[Path]:
    """Return the portraits of the London set, 960x720; empty if the set is missing."""
    return sorted((DATA / "faces" / "london").glob("*.jpg"))


def lfw() -> list[Path]:
    """Return the pictures of LFW, 250x250; empty if the set is missing."""
    return sorted((DATA / "lfw" / "images").glob("*/*.jpg"))


def pair(folder: Path, files: Sequence[Path] = ()) -> tuple[Path, Path]:
    """Return the given files, two pictures of one London person, or two written portraits."""
    found = list(files) or london()[:2]
    if not found:
        for name, data in zip("ab", portraits(100_000), strict=True):
            (folder / f"{name}.jpg").write_bytes(data)
            found.append(folder / f"{name}.jpg")
    first, second = found
    return first, second


def many(count: int, kinds: Sequence[str] = ("london", "lfw")) -> list[Path]:
    """Return `count` files, alternating between the sets, repeated as needed."""
    sets = [paths for kind in kinds if (paths := {"london": london, "lfw": lfw}[kind]())]
    if not sets:
        raise SystemExit(f"no pictures of {' or '.join(kinds)} in {DATA}; set FACECORE_DATA")
    return list(islice(chain.from_iterable(zip(*map(cycle, sets), strict=False)), count))


def texture(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Return a background without faces: coarse and fine blobs, and sensor noise."""
    picture = np.full((height, width, 3), 120, np.float32)
    for cells, strength in ((4, 40), (24, 20), (120, 10)):
        coarse = rng.normal(0, strength, (cells, cells * width // height + 1, 3))
        picture += cv2.resize(
            coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
    picture += rng.standard_normal(picture.shape, np.float32) * 4
    return np.clip(picture, 0, 255).astype(np.uint8)


def photograph(
    engine: FaceEngine,
    portrait: Path,
    target: Path,
    size: tuple[int, int] = (4000, 3000),
    share: float = 0.25,
    seed: int = 0,
) -> Path:
    """Write a portrait in a large picture, as from a phone, as JPEG of quality 90.

    The portrait is enlarged until the face box has the given share of the picture's height, then
    blended into a textured background with the same noise.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    picture = texture(rng, width, height).astype(np.float32)
    pixels = np.asarray(cv2.imread(str(portrait)), np.uint8)
    box = engine.largest_face(pixels).box
    scale = share * height / float(box[3] - box[1])
    # Keep only the part around the face that fits.
    middle = (box[:2] + box[2:]) / 2
    half = np.minimum(np.array([width, height]) / (2 * scale), [pixels.shape[1], pixels.shape[0]])
    low = np.maximum(middle - half, 0).astype(int)
    high = np.minimum(middle + half, [pixels.shape[1], pixels.shape[0]]).astype(int)
    part = pixels[low[1] : high[1], low[0] : high[0]]
    part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    part = part[:height, :width]
    rows, columns = part.shape[:2]
    top, left = (height - rows) // 2, (width - columns) // 3
    noisy = part + rng.standard_normal(part.shape, np.float32) * 4
    edge = np.zeros((rows, columns), np.float32)
    margin = max(1, min(rows, columns) // 12)
    edge[margin:-margin, margin:-margin] = 1
    weight = cv2.blur(edge, (margin, margin))[..., None]
    place = picture[top : top + rows, left : left + columns]
    place += (noisy - place) * weight
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    cv2.imwrite(str(target), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return target
