"""facecore.images.picture.Picture: decode only as finely as a caller needs."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facecore import FaceEngine, UnreadableImage
from facecore.images import load, open_picture
from facecore.images.picture import Picture

ORIENTATION = 0x0112


def jpeg(pixels: np.ndarray, mode: str = "RGB", orientation: int = 1, **options: Any) -> bytes:
    image = Image.fromarray(pixels[..., ::-1]).convert(mode)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=exif, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photograph(astronaut: np.ndarray) -> np.ndarray:
    """Four times as large as the astronaut, with odd sides: 2045 x 2043."""
    return cv2.resize(astronaut, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)[:2045, :2043]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_the_average_of_the_whole(
    photograph: np.ndarray, mode: str, odd: bool, orientation: int
) -> None:
    data = jpeg(photograph if odd else photograph[:2040, :2000], mode, orientation)
    whole = load(data)
    for scale, wanted in ((0.6, 1), (0.5, 2), (0.3, 2), (0.25, 4), (0.01, 8)):
        picture = open_picture(data)
        assert (picture.height, picture.width) == whole.shape[:2]
        pixels, reduction = picture.reduced(scale)
        # If flipped, the partial block at the end would come first.
        r = 1 if odd and orientation not in (1, 5) else wanted
        assert reduction == r
        assert pixels.shape == (-(-whole.shape[0] // r), -(-whole.shape[1] // r), 3)
        assert pixels.flags.c_contiguous
        rows, columns = (side // r for side in whole.shape[:2])
        blocks = whole[: rows * r, : columns * r].reshape(rows, r, columns, r, 3)
        difference = pixels[:rows, :columns] - blocks.mean((1, 3))
        assert np.abs(difference).mean() < 2


@given(st.lists(st.floats(0.01, 2), min_size=1, max_size=6))
def test_it_is_never_coarser_than_asked_and_prefers_what_is_there(scales: list[float]) -> None:
    made = []

    def decode(reduction: int) -> np.ndarray:
        made.append(reduction)
        return np.zeros((-(-800 // reduction), -(-600 // reduction), 3), np.uint8)

    picture = Picture(800, 600, decode, reductions=(2, 4, 8))
    for scale in scales:
        had = list(made)
        pixels, reduction = picture.reduced(scale)
        assert pixels.shape[0] == -(-800 // reduction)
        assert reduction == 1 or reduction * scale <= 1
        assert made == had or not any(r * scale <= 1 for r in had)
    assert len(made) == len(set(made))
    assert picture.nbytes > 0
    picture.release_pixels()
    assert picture.nbytes == 0


def test_what_is_not_a_jpeg_is_decoded_whole(photograph: np.ndarray) -> None:
    for kind in (".png", ".webp", ".bmp"):
        data = cv2.imencode(kind, photograph[:400, :400])[1].tobytes()
        assert open_picture(data).reduced(0.1)[1] == 1
    cmyk = open_picture(jpeg(photograph[:400, :400], "CMYK"))
    assert cmyk.reduced(0.1)[0].shape == (400, 400, 3)
    array = Picture.of(photograph)
    assert array.reduced(0.1)[0] is array.pixels() is photograph
    array.release_pixels()
    assert array.pixels() is photograph


def test_damaged_pixels_are_a_typed_error_at_every_scale(photograph: np.ndarray) -> None:
    data = jpeg(photograph).replace(b"\xff\xdb", b"\xff\xfe")  # the tables become comments
    for scale in (1.0, 0.1):
        with pytest.raises(UnreadableImage):
            open_picture(data).reduced(scale)


def test_the_same_face_from_a_large_file_and_from_its_pixels(
    compact: FaceEngine, photograph: np.ndarray
) -> None:
    data = jpeg(photograph)
    from_file, from_pixels = compact.sample(data), compact.sample(load(data))
    assert from_file.picture.nbytes == 0  # pixels that can be decoded again are not kept
    # In pixels of the whole picture, in which the eyes are 200 apart.
    distance = np.abs(from_file.face.landmarks - from_pixels.face.landmarks).max()
    assert distance < 4
    assert compact.embed(from_file) @ compact.embed(from_pixels) > 0.99
    assert np.array_equal(from_file.pixels, load(data))
    assert compact.embed(data) @ compact.embed(from_file) > 0.999999


@pytest.mark.parametrize("side", [2556, 2557, 2561])
def test_landmarks_count_pixels_of_the_whole_picture(
    compact: FaceEngine, astronaut: np.ndarray, side: int
) -> None:
    large = cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_CUBIC)
    # Mirrored, the face lies near another edge.
    for flip in (None, 1):
        picture = large if flip is None else np.ascontiguousarray(cv2.flip(large, flip))
        data = jpeg(picture)
        assert open_picture(data).reduced(0.25)[1] == 4
        found = compact.largest_face(data).landmarks
        exact = compact.largest_face(load(data)).landmarks
        shift = (found - exact).mean(axis=0)
        assert np.abs(shift).max() < 0.0125 * np.linalg.norm(exact[0] - exact[1])


def test_a_batch_keeps_no_picture_finer_than_it_looks(
    compact: FaceEngine, astronaut: np.ndarray
) -> None:
    wall = np.full((2400, 3200, 3), 128, np.uint8)
    wall[1000:1256, 1300:1556] = astronaut[:512:2, :512:2]
    pictures = [open_picture(jpeg(wall)) for _ in range(3)]
    vectors = list(compact.embed_many(pictures))
    assert all(isinstance(vector, np.ndarray) for vector in vectors)
    assert sum(picture.nbytes for picture in pictures) == 0


def test_a_small_face_of_a_large_file_is_decoded_as_finely_as_it_needs(
    compact: FaceEngine, astronaut: np.ndarray
) -> None:
    wall = np.full((2400, 3200, 3), 128, np.uint8)
    wall[1000:1512, 1300:1812] = astronaut  # eyes 50 apart: no resolution to spare
    data = jpeg(wall)
    vector = compact.embed(data)
    assert vector @ compact.embed(load(data)) > 0.99
    assert vector @ compact.embed(astronaut) > 0.9
