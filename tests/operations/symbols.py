"""Symbolic pictures of the conformance cases ('@alice1;h=640;w=480'), made from real faces.

With the reference data, alice, bob, carol and dave are four people of the London set.  Photo 1 is
neutral, photo 2 smiling; the others vary the crop, roll and light of these two.  Without the data,
alice is the astronaut and bob is Grace Hopper, one picture each; the rest is skipped.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from facecore import FaceEngine, FaceSample

Pixels = NDArray[np.uint8]
Recapture = Callable[[Pixels], Pixels]

HEIGHT, WIDTH = 960, 720
PEOPLE = {"alice": "001", "bob": "002", "carol": "004", "dave": "005"}
# Photo 3 and up: (smiling, scale, degrees, brightness, contrast, mirrored)
VARIANTS = {
    3: (True, 0.92, 2, 8, 1.0, False),
    4: (False, 0.95, -3, -12, 0.95, False),
    5: (True, 1.0, 4, 0, 0.9, True),
    6: (False, 0.9, 3, 15, 1.05, True),
    7: (True, 0.97, -2, -8, 1.1, False),
    8: (False, 1.0, -4, 10, 0.92, True),
}


class Symbols:
    """Turns the symbols of the cases into bytes; makes each picture once."""

    def __init__(
        self,
        london: Path | None,
        astronaut: Pixels,
        hopper: Pixels,
        *,
        recapture: Recapture | None = None,
        morph: Callable[[Pixels, Pixels], Pixels] | None = None,
    ) -> None:
        self._london = london
        self._stand_ins = {"alice": _portrait(astronaut, 220, 120), "bob": _portrait(hopper)}
        self._recapture, self._morph = recapture, morph
        self._faces: dict[tuple[str, str], FaceSample] = {}
        self.data = cache(self._data)
        self.pixels = cache(self._pixels)

    def face(self, engine: FaceEngine, symbol: str) -> FaceSample:
        """Return the face of a symbol, which is detected and embedded once."""
        key = (engine.contract_id, symbol)
        if key not in self._faces:
            self._faces[key] = engine.sample(self.data(symbol))
        return self._faces[key]

    def _pixels(self, name: str) -> Pixels:
        """Return upright BGR pixels of a name without options."""
        if match := re.fullmatch(r"(alice|bob|carol|dave)([1-8])", name):
            return self._photo(match[1], int(match[2]))
        makers: dict[str, Callable[[], Pixels]] = {
            "noface": lambda: _no_face(),
            "toolarge": lambda: self.pixels("alice1"),
            "toolarge10m": lambda: self.pixels("alice1"),
            "lowres": lambda: _cover(self.pixels("alice1"), 320, 240),
            "two_faces": lambda: _two(self.pixels("alice1"), self.pixels("bob1")),
            "two_faces_bob_big": lambda: _two(self.pixels("bob1"), self.pixels("alice1")),
            "spoof": lambda: self._spoof("alice1"),
            "spoof_bob": lambda: self._spoof("bob1"),
            "morph_ab": self._morphed,
            "idchip_alice": lambda: _cover(self.pixels("alice1")[190:810, 110:630], 126, 102),
            "blurred_alice": lambda: cv2.GaussianBlur(self.pixels("alice1"), (0, 0), 9),
        }
        return makers[name]()

    def _photo(self, person: str, number: int) -> Pixels:
        if self._london is None:
            if person not in self._stand_ins:
                pytest.skip(f"no picture of {person} without faces/london in the reference data")
            base = self._stand_ins[person]
            # Only one picture: photo 2 is a variant of it too, and "smiling" has no effect.
            return base if number == 1 else _varied(base, *VARIANTS[max(number, 3)][1:])
        if number <= 2:
            return self._read(person, smiling=number == 2)
        smiling, *change = VARIANTS[number]
        return _varied(self._read(person, smiling=smiling), *change)

    def _read(self, person: str, *, smiling: bool) -> Pixels:
        mood = "smiling" if smiling else "neutral"
        assert self._london is not None
        path = self._london / f"{PEOPLE[person]}_{mood}.jpg"
        return np.asarray(cv2.imread(str(path)), np.uint8)

    def _spoof(self, name: str) -> Pixels:
        if self._recapture is None:
            pytest.skip("no recapture simulation here to make @spoof with")
        return self._recapture(self.pixels(name))

    def _morphed(self) -> Pixels:
        if self._morph is None:
            pytest.skip("no morph can be made here")
        return self._morph(self.pixels("alice1"), self.pixels("bob1"))

    def _data(self, symbol: str) -> bytes:
        """Return the encoded picture of a symbol with its options."""
        name, *pairs = symbol.removeprefix("@").split(";")
        options = dict(pair.split("=") for pair in pairs)
        if name == "not_an_image":
            return b"this is a text and no picture " * 100
        size = int(
            options.get(
                "bytes", {"toolarge": 1_258_291, "toolarge10m": 10 * 2**20 + 1}.get(name, 0)
            )
        )
        pixels = self.pixels(name)
        turn = int(options.get("exif", 1))
        if "h" in options:
            height, width = int(options["h"]), int(options["w"])
            if turn >= 5:  # the options then describe the stored pixels
                height, width = width, height
            pixels = _cover(pixels, height, width)
        return encode(pixels, options.get("fmt", "jpeg"), turn=turn, size=size)


# EXIF orientation -> function from upright to stored pixels
_STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[:, ::-1],
}


def encode(pixels: Pixels, fmt: str, *, turn: int = 1, size: int = 0) -> bytes:
    """Encode a picture, stored turned by an EXIF orientation and padded to a size."""
    picture = Image.fromarray(np.ascontiguousarray(_STORED[turn](pixels)[:, :, ::-1]))
    if fmt in ("png", "gif", "bmp"):
        picture = picture.quantize(256)  # in full colour 960x720 pixels exceed 1 MiB
    exif = Image.Exif()
    if turn != 1:
        exif[0x0112] = turn
    more = {"exif": exif} if turn != 1 else {}
    for quality in (92, 85, 70, 50, 30):
        buffer = io.BytesIO()
        picture.save(buffer, fmt, **({"quality": quality} if fmt == "jpeg" else {}), **more)
        data = buffer.getvalue()
        if fmt != "jpeg" or len(data) <= (size - 4 if size else 120_000):
            break
    return pad(data, size) if size else data


def pad(data: bytes, size: int) -> bytes:
    """Pad the file to `size` bytes, with comments if the format has them."""
    missing = size - len(data)
    if missing < 0:
        raise ValueError(f"{len(data)} bytes cannot be padded to {size}")
    if data.startswith(b"\xff\xd8"):
        comments = bytearray()
        while missing - len(comments) >= 4:
            body = min(missing - len(comments) - 4, 65_000)
            comments += b"\xff\xfe" + (body + 2).to_bytes(2) + b"\0" * body
        data = data[:2] + bytes(comments) + data[2:]
    elif data.startswith(b"\x89PNG") and missing >= 12:
        body = b"Comment\0" + b" " * (missing - 20)
        chunk = len(body).to_bytes(4) + b"tEXt" + body + zlib.crc32(b"tEXt" + body).to_bytes(4)
        data = data[:-12] + chunk + data[-12:]
    return data + b"\0" * (size - len(data))


def _cover(pixels: Pixels, height: int, width: int) -> Pixels:
    """Crop to the aspect ratio and resize without stretching."""
    rows, columns = pixels.shape[:2]
    scale = max(height / rows, width / columns)
    cut_h, cut_w = min(rows, round(height / scale)), min(columns, round(width / scale))
    top, left = (rows - cut_h) // 2, (columns - cut_w) // 2
    cut = pixels[top : top + cut_h, left : left + cut_w]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, (width, height), interpolation=way), np.uint8)


def _portrait(pixels: Pixels, centre: int | None = None, half: int | None = None) -> Pixels:
    if centre is not None and half is not None:
        pixels = pixels[: half * 8 // 3, centre - half : centre + half]
    return _cover(pixels, HEIGHT, WIDTH)


def _varied(
    base: Pixels, scale: float, degrees: float, light: float, contrast: float, mirrored: bool
) -> Pixels:
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), degrees, scale)
    moved = cv2.warpAffine(base, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    lit = cv2.convertScaleAbs(moved, alpha=contrast, beta=light)
    return np.ascontiguousarray(lit[:, ::-1] if mirrored else lit)


def _two(large: Pixels, small: Pixels) -> Pixels:
    picture = large.copy()
    little = _cover(small, 220, 165)
    picture[-220:, -165:] = little
    return picture


def _no_face() -> Pixels:
    from skimage import data

    return _cover(np.ascontiguousarray(data.coffee()[:, :, ::-1]), HEIGHT, WIDTH)
