"""Feed mutated pictures to the decoder or the engine, in a process that may die.

`mutant(seed, i)` always returns the same picture.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from facecore.errors import FacecoreError, ImageTooLarge, UnreadableImage
from facecore.images import Limits, load
from tests.images import hostile

HANG = 10.0  # seconds
MEMORY = 64 * 2**20  # bytes that the limits allow one picture
ASIDE = 64 * 2**20  # bytes that the allocator keeps and the libraries allocate once
LIMITS = Limits(max_bytes=2**20, max_pixels=10_000_000, max_memory=MEMORY)
_NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000,
            0xFFFFFFFF, 0xFFFFFFF4)  # fmt: skip


@cache
def corpus() -> list[bytes]:
    """Return small valid pictures of every format and most of its kinds, and past crashes."""
    grid = np.mgrid[0:40, 0:56].astype(np.float32)
    layers = [
        np.sin(grid[0] / a) * np.cos(grid[1] / b) * 120 + 128 for a, b in ((5, 7), (9, 4), (3, 11))
    ]
    rgb = Image.fromarray(np.dstack(layers).astype(np.uint8))
    grey, bit, palette = rgb.convert("L"), rgb.convert("1"), rgb.quantize(16)
    rgba = rgb.copy()
    rgba.putalpha(grey)
    turned = Image.Exif()
    turned[0x0112] = 6
    found: list[bytes] = []

    def add(image: Image.Image, kind: str, **options: Any) -> None:
        buffer = io.BytesIO()
        image.copy().save(buffer, kind, **options)
        found.append(buffer.getvalue())

    for options in ({}, {"progressive": True}, {"exif": turned}, {"restart_marker_blocks": 2}):
        add(rgb, "JPEG", quality=70, **options)
    add(grey, "JPEG")
    add(rgb.convert("CMYK"), "JPEG")
    add(rgb, "MPO", save_all=True, append_images=[rgb])
    found.append(found[0][:-2] + b"SEFH trailer" * 4)
    for image in (rgb, grey, bit, palette, rgba, rgba.convert("LA")):
        add(image, "PNG")
    add(rgb, "PNG", exif=turned, save_all=True, append_images=[rgb.rotate(180)])
    add(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    add(grey, "PNG", transparency=128)
    for channels in (1, 3, 4):
        wide = np.asarray(rgba)[:, :, :channels].astype(np.uint16) * 257
        found.append(cv2.imencode(".png", wide)[1].tobytes())
    for image in (rgb, rgba):
        add(image, "WEBP")
        add(image, "WEBP", lossless=True, exif=turned)
    add(rgb, "WEBP", save_all=True, append_images=[rgba])
    for image in (rgb, bit, palette):
        add(image, "BMP")
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        add(rgb, "TIFF", compression=compression)
    for compression in ("group3", "group4"):
        add(bit, "TIFF", compression=compression)
    add(palette, "TIFF")
    add(rgba, "TIFF", compression="tiff_lzw", exif=turned)
    add(rgb, "TIFF", save_all=True, append_images=[grey.copy()])
    add(Image.fromarray(layers[0] / 255), "TIFF", compression="tiff_lzw")
    for options in ({}, {"irreversible": True}, {"tile_size": (32, 32)}, {"no_jp2": True}):
        add(rgb, "JPEG2000", **options)
    add(rgba, "JPEG2000")
    add(grey, "JPEG2000")
    crashes = [path.read_bytes() for path in sorted(hostile.FOLDER.iterdir())]
    return found + [data for data in crashes if len(data) < 5000]


def mutant(seed: int, number: int) -> bytes:
    """Apply one to six changes to a corpus picture; three of four PNGs get right checksums."""
    draw = random.Random(f"{seed}/{number}")
    pictures = corpus()
    data = bytearray(draw.choice(pictures))
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        if len(data) < 4:
            break
        # Headers are where parsers break.
        place = draw.randrange(min(len(data), draw.choice((64, 400, len(data)))))
        what = draw.randrange(8)
        if what == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif what == 1:
            data[place] = draw.randrange(256)
        elif what == 2:
            width = draw.choice((1, 2, 4))
            number_ = draw.choice(_NUMBERS) & (1 << 8 * width) - 1
            data[place : place + width] = number_.to_bytes(width, draw.choice(("little", "big")))
        elif what == 3:
            del data[place : place + draw.choice((1, 2, 4, 16, 200))]
        elif what == 4:
            data[place:place] = draw.randbytes(draw.choice((1, 2, 4, 16)))
        elif what == 5:
            length = draw.choice((4, 12, 40, 300))
            data[place:place] = data[place : place + length]
        elif what == 6:
            other = draw.choice(pictures)
            start = draw.randrange(len(other))
            data[place : place + 50] = other[start : start + draw.choice((8, 50, 400))]
        else:
            del data[place:]
    if data.startswith(hostile.SIGNATURE) and draw.random() < 0.75:
        _mend_checksums(data)
    return bytes(data)


def _mend_checksums(png: bytearray) -> None:
    position = 8
    while position + 12 <= len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4])
        if end > len(png):
            # A wrong length would hide everything after it, so end the file here.
            png[position : position + 4] = max(len(png) - position - 12, 0).to_bytes(4)
            end = len(png)
        png[end - 4 : end] = zlib.crc32(png[position + 4 : end - 4]).to_bytes(4)
        position = end


@dataclass
class Report:
    """Result of a run; `clean` requires empty crashes, hangs, memory, foreign and printed."""

    count: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    crashes: list[int] = field(default_factory=list)
    hangs: list[int] = field(default_factory=list)
    too_much_memory: list[int] = field(default_factory=list)
    foreign: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    printed: str = ""

    @property
    def clean(self) -> bool:
        return not (
            self.crashes or self.hangs or self.too_much_memory or self.foreign or self.printed
        )


def run(
    count: int, *, seed: int = 0, first: int = 0, seconds: float = 600.0, detect: bool = False
) -> Report:
    """Feed mutants to a child process that is replaced if it dies.

    Parameters
    ----------
    count, first : int
        Numbers of the mutants: `first` to `count` − 1, or as far as `seconds` allow.
    seed : int
    seconds : float
        Limit of wall-clock time.
    detect : bool
        Run `FaceEngine.detect` instead of only decoding.
    """
    report = Report()
    spawn = multiprocessing.get_context("spawn")
    begin, following = time.monotonic(), first
    with tempfile.TemporaryDirectory() as folder:
        while following < count and time.monotonic() - begin < seconds:
            current = spawn.Value("q", following)
            receiver, sender = spawn.Pipe(duplex=False)
            stop = begin + seconds
            log = Path(folder) / "stderr"
            child = spawn.Process(
                target=_work, args=(seed, following, count, stop, detect, current, sender, str(log))
            )
            child.start()
            sender.close()
            last, since = following, time.monotonic() + 60  # the child imports first
            while child.is_alive():
                child.join(0.2)
                if current.value != last:
                    last, since = current.value, time.monotonic()
                elif time.monotonic() - since > HANG:
                    report.hangs.append(last)
                    child.kill()
                    child.join()
            last = current.value
            try:
                part = receiver.recv()
                for name, value in part.items():
                    _merge(report, name, value)
                following = part["count"]
            except EOFError:  # the results are lost; keep the picture that ended it
                if last not in report.hangs:
                    report.crashes.append(last)
                following = last + 1
            report.count = following
            if log.exists():
                report.printed += log.read_text("utf-8", "replace")[-2000:]
                log.unlink()
    report.seconds = time.monotonic() - begin
    return report


def _merge(report: Report, name: str, value: Any) -> None:
    if name == "outcomes":
        report.outcomes.update(value)
    elif name in ("too_much_memory", "foreign"):
        getattr(report, name).extend(value)
    elif name == "slowest":
        report.slowest = max(report.slowest, value)
    elif name == "processor":
        report.processor += value


def _work(
    seed: int,
    first: int,
    count: int,
    stop: float,
    detect: bool,
    current: Any,
    sender: Any,
    log: str,
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    if detect:
        from facecore import FaceEngine

        engine = FaceEngine(limits=LIMITS, threads=1)
        look: Any = engine.detect
        look(np.zeros((3000, 3300, 3), np.uint8))  # the models allocate their largest buffers
    else:
        look = _decode
    for data in corpus():
        try:
            look(data)
        except FacecoreError:
            continue
    base = _peak()
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    outcomes: Counter[str] = Counter()
    foreign: list[tuple[int, str]] = []
    memory: list[int] = []
    slowest = 0.0
    number = first
    used = time.process_time()
    while number < count and time.monotonic() < stop:
        current.value = number
        data = mutant(seed, number)
        begin = time.process_time()
        try:
            look(data)
            outcomes["read"] += 1
        except (UnreadableImage, ImageTooLarge) as error:
            outcomes[type(error).__name__] += 1
        except Exception as error:
            foreign.append((number, re.sub(r"\s+", " ", repr(error))[:200]))
        slowest = max(slowest, time.process_time() - begin)
        if (peak := _peak()) - base > MEMORY + ASIDE:
            memory.append(number)
            base = peak
        number += 1
    sender.send(
        {"count": number, "outcomes": outcomes, "foreign": foreign, "too_much_memory": memory,
         "slowest": slowest, "processor": time.process_time() - used}
    )  # fmt: skip


def _decode(data: bytes) -> None:
    load(data, LIMITS)


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
