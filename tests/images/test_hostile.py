"""Hostile and damaged pictures never crash, take gigabytes, print or depend on a switch."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from facecore import errors
from facecore.errors import FacecoreError, ImageTooLarge, UnreadableImage
from facecore.images import DEFAULT_LIMITS, Limits, load, open_picture
from facecore.images.formats import read_still
from tests.images import hostile
from tests.images.fuzzing import LIMITS, corpus, run

PLAIN = corpus()[0]
KEPT = sorted(path.name for path in hostile.FOLDER.iterdir())


def outcome(image: object) -> bytes | str:
    """Return the pixels, or the code of the error."""
    try:
        return load(image, LIMITS).tobytes()
    except FacecoreError as error:
        return error.code


def test_the_kept_files_are_those_that_are_made() -> None:
    made = hostile.kept()
    assert {*made} == {*KEPT}
    for name in KEPT:
        data = (hostile.FOLDER / name).read_bytes()
        # Other zlib versions compress differently.
        assert abs(len(data) - len(made[name])) < 64, name


@pytest.mark.parametrize("name", KEPT)
def test_a_past_crash_is_read_or_refused(name: str) -> None:
    path = hostile.FOLDER / name
    expected = name.split(".")[1]
    if expected == "read":
        assert load(path).ndim == 3
    else:
        with pytest.raises(getattr(errors, expected)):
            load(path)


def in_child(code: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=hostile.FOLDER, capture_output=True, text=True,
        timeout=300, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout, done.stderr


def test_no_kept_file_and_no_flood_of_tags_costs_memory_or_prints() -> None:
    out, err = in_child(
        "import io, resource, warnings\n"
        "from PIL import Image\n"
        "from facecore.images import load\n"
        "from facecore.errors import FacecoreError\n"
        "from tests.images import fuzzing, hostile\n"
        "def look(data):\n"
        "    for image in (data, io.BytesIO(data)):\n"
        "        try:\n"
        "            load(Image.open(image) if image is not data else data)\n"
        "        except (FacecoreError, OSError, SyntaxError, Image.DecompressionBombError):\n"
        "            pass\n"
        "for data in fuzzing.corpus()[:20]: look(data)\n"
        "warnings.simplefilter('ignore'); Image.open(io.BytesIO(hostile.exif_flood()))\n"
        "warnings.simplefilter('always')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "for name, data in hostile.kept().items():\n"
        "    try: load(data)\n"
        "    except FacecoreError: pass\n"
        "flood = hostile.exif_flood()\n"
        "assert load(flood).shape == (48, 48, 3)\n"
        "assert load(Image.open(io.BytesIO(flood))).shape == (48, 48, 3)\n"
        "for data in fuzzing.corpus():\n"
        "    for cut in (len(data) // 2, len(data) - 40):\n"
        "        for damaged in (data[:cut], data[:cut] + b'\\x55\\xaa' * 9 + data[cut + 18:]):\n"
        "            try: load(damaged)\n"
        "            except FacecoreError: pass\n"
        "print(peak() - before)\n"
    )
    assert int(out) < 200  # MiB; the largest kept file would take 1900
    assert err == ""


@pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="needs glibc"
)
def test_other_libraries_have_their_standard_error_back() -> None:
    _, err = in_child(
        "import ctypes\n"
        "from facecore.images import load\n"
        "from tests.images import fuzzing\n"
        "load(fuzzing.corpus()[0])\n"
        "ctypes.CDLL(None).perror(b'still here')\n"
    )
    assert err.startswith("still here")


def test_global_switches_of_other_libraries_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = []
    for data in corpus():
        pictures += [data, data[: len(data) * 2 // 3], data[:-30]]
    plain = [outcome(data) for data in pictures]
    opened = [Image.open(io.BytesIO(data)) for data in corpus()[:8]]
    cut = corpus()[0][:-200]
    assert outcome(Image.open(io.BytesIO(cut))) == "UnreadableImage"
    cut_image = Image.open(io.BytesIO(cut))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [outcome(data) for data in pictures] == plain
        assert all(isinstance(outcome(image), bytes) for image in opened)
        assert outcome(cut_image) == "UnreadableImage"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # as the other library left it


@pytest.mark.parametrize("operations", [(0, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("part", [True, False])
def test_an_animation_is_its_still_picture_by_every_way_in(
    part: bool, operations: tuple[int, int], tmp_path: Path
) -> None:
    first = bytearray(hostile.frame(0))
    frame = hostile.chunk(b"fcTL", bytes(first[8:-6]) + bytes(operations))
    data = hostile.animation(0, first=frame if part else b"", still=0x80, value=0x20)
    path = tmp_path / "animated.png"
    path.write_bytes(data)
    with Image.open(path) as opened:
        for image in (data, path, opened, io.BytesIO(data)):
            assert (load(image) == 0x80).all()


def test_decoders_see_nothing_that_pixels_do_not_need() -> None:
    secret = b"PRIVATE METADATA"
    image = Image.fromarray(np.full((16, 16, 3), 99, np.uint8))
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        image.save(buffer, kind, exif=exif, icc_profile=secret * 9)
        assert secret in buffer.getvalue()
        still = read_still(buffer.getvalue() + secret, DEFAULT_LIMITS)
        assert secret not in still.data
        assert still.orientation == 6


# --- the budget -----------------------------------------------------------------------------


def test_memory_is_known_before_a_pixel_is_decoded() -> None:
    image = Image.fromarray(np.zeros((100, 100, 4), np.uint8))
    for kind, mode, least in (("JPEG", "RGB", 3), ("PNG", "RGB", 3), ("PNG", "RGBA", 7),
                              ("WEBP", "RGBA", 7), ("TIFF", "RGB", 7), ("BMP", "RGB", 7),
                              ("JPEG2000", "RGB", 15)):  # fmt: skip
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, kind)
        memory = read_still(buffer.getvalue(), DEFAULT_LIMITS).memory
        assert memory >= least * 10_000
        assert load(buffer.getvalue(), Limits(max_memory=memory)).shape == (100, 100, 3)
        with pytest.raises(ImageTooLarge, match="the limit is 0 MiB"):
            load(buffer.getvalue(), Limits(max_memory=memory - 1))


def test_16_bits_and_more_scans_cost_more() -> None:
    wide = cv2.imencode(".png", np.zeros((50, 50, 4), np.uint16))[1].tobytes()
    assert read_still(wide, DEFAULT_LIMITS).memory >= 2500 * 16
    sizes = []
    for progressive in (False, True):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=progressive, subsampling=0)
        sizes.append(read_still(buffer.getvalue(), DEFAULT_LIMITS).memory)
    assert sizes[1] >= sizes[0] + 64 * 64 * 3
    turned = 15.2  # bytes a pixel, measured on an AVIF with alpha in 4:4:4
    avif = read_still(b"\0\0\0\x18ftypavif" + bytes(99), DEFAULT_LIMITS, lambda _: (64, 64))
    assert avif.memory >= 64 * 64 * turned
    # A photo of 49 megapixels, as phones take them.
    read_still(b"\0\0\0\x18ftypheic" + bytes(2**20), DEFAULT_LIMITS, lambda _: (8064, 6048))


def test_a_few_bytes_never_get_hundreds_of_megabytes() -> None:
    for width, height, allowed in ((16_383, 4_882, False), (2_000, 2_000, True)):
        data = hostile.webp_lossless(width, height)
        assert len(data) < 40
        if allowed:
            assert open_picture(data).width == width
        else:
            with pytest.raises(ImageTooLarge, match="a file of 32 bytes would take"):
                open_picture(data)


def test_a_file_of_a_million_empty_parts_is_refused() -> None:
    chunks = hostile.chunk(b"tEXt") * 70_000
    jpeg = PLAIN[:2] + b"\xff\xfe\0\2" * 70_000 + PLAIN[2:]
    webp = b"EXIF\0\0\0\0" * 70_000
    for data in (
        hostile.png(hostile.header(48, 48), chunks, hostile.chunk(b"IDAT", hostile.rows(0))),
        jpeg,
        b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp,
        b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 70_000,
        jpeg_2000_with(b"\xff\x64\0\2" * 70_000),
        hostile.tiff({256: (4, [16]), 257: (4, [16]), 278: (4, [1])}, bytes(16), 70_000),
    ):
        with pytest.raises(ImageTooLarge, match="65,536 parts"):
            load(data)


# --- unlucky files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trailer", [b"", bytes(500), b"\0\0\1\x0aPanorama_Shot_Info" * 40, b"\xff\xd8\xff\xe1"]
)
def test_a_jpeg_whose_end_marker_is_missing_is_read_where_all_blocks_are_there(
    trailer: bytes,
) -> None:
    assert np.array_equal(load(PLAIN[:-2] + trailer), load(PLAIN))


@pytest.mark.parametrize("trailer", [b"", bytes(500), b"\xff\xd8\xff\xe1"])
def test_a_jpeg_without_end_marker_that_lacks_blocks_is_refused(trailer: bytes) -> None:
    for cut in (1, 2, 3, 5, 9, 30, 300):
        with pytest.raises(UnreadableImage, match=r"cut off|damaged"):
            load(PLAIN[: -2 - cut] + trailer)


def test_a_jpeg_with_restarts_that_is_cut_at_one_is_refused() -> None:
    data = corpus()[3]
    last = max(data.rfind(bytes([0xFF, 0xD0 + i])) for i in range(8))
    assert last > 0
    with pytest.raises(UnreadableImage):
        load(data[:last])
    assert np.array_equal(load(data[:-2]), load(data))


def test_a_panorama_is_not_reduced_before_it_is_known_to_be_whole() -> None:
    assert open_picture(PLAIN[:-2]).reduced(0.1)[1] == 1


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}, {"irreversible": True},
                                     {"tile_size": (32, 32)}, {"num_resolutions": 3}])  # fmt: skip
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_jpeg_2000(mode: str, options: dict[str, object]) -> None:
    image = Image.open(io.BytesIO(corpus()[8])).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG2000", **options)
    data = buffer.getvalue()
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    difference = np.abs(load(data)[:, :, ::-1].astype(int) - expected)
    assert difference.max() <= (40 if "irreversible" in options else 1)
    for cut in (4, 20, len(data) // 2, len(data) - 1):
        with pytest.raises(UnreadableImage):
            load(data[:cut])
    with pytest.raises(ImageTooLarge):
        load(data, Limits(max_pixels=1000))


def jp2_with(mode: str, colour: bytes, rows: list[tuple[int, int, int]]) -> bytes:
    """Return a JP2 with this content of its `colr` box and these rows in its `cdef` box."""

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(content), kind) + content

    buffer = io.BytesIO()
    Image.new(mode, (16, 16), "white").save(buffer, "JPEG2000")
    data = buffer.getvalue()
    start, specified, stop = (data.index(kind) - 4 for kind in (b"jp2h", b"colr", b"jp2c"))
    header = data[start + 8 : specified] + box(b"colr", colour)
    if rows:
        packed = b"".join(struct.pack(">HHH", *row) for row in rows)
        header += box(b"cdef", struct.pack(">H", len(rows)) + packed)
    return data[:start] + box(b"jp2h", header) + data[stop:]


SRGB = b"\1\0\0\0\0\0\x10"
COLOURS = [(0, 0, 1), (1, 0, 2), (2, 0, 3)]


@pytest.mark.parametrize(
    ("mode", "colour", "rows"),
    [
        ("RGB", SRGB, COLOURS),
        ("RGB", SRGB[:-1] + b"\0", []),  # OpenJPEG, if the colour space is unspecified
        ("RGB", b"\2\0\0" + bytes(16) + b"RGB " + bytes(99), []),
        ("RGBA", SRGB, [*COLOURS, (3, 2, 0)]),
        ("RGBA", SRGB, [(3, 1, 0), *COLOURS]),
        ("LA", SRGB[:-1] + b"\x11", [(0, 0, 1), (1, 1, 1)]),
    ],
)
def test_a_jpeg_2000_of_plain_colours(
    mode: str, colour: bytes, rows: list[tuple[int, int, int]]
) -> None:
    assert (load(jp2_with(mode, colour, rows)) == 255).all()


@pytest.mark.parametrize(
    ("mode", "colour", "rows"),
    [
        ("CMYK", SRGB[:-1] + b"\x0c", []),
        ("RGB", SRGB[:-1] + b"\x0e", []),  # CIELab
        ("RGBA", b"\2\0\0" + bytes(16) + b"CMYK" + bytes(99), []),
        ("RGB", b"\3\0\0" + bytes(16) + b"Lab " + bytes(99), []),
        ("RGB", SRGB, [(0, 0, 3), (1, 0, 2), (2, 0, 1)]),
        ("RGBA", SRGB, [(0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)]),
        ("RGBA", SRGB, [*COLOURS, (3, 65535, 65535)]),
        ("RGBA", SRGB, COLOURS),
    ],
)
def test_a_jpeg_2000_of_other_colours_is_refused(
    mode: str, colour: bytes, rows: list[tuple[int, int, int]]
) -> None:
    with pytest.raises(UnreadableImage, match="unsupported") as caught:
        load(jp2_with(mode, colour, rows))
    assert caught.value.hint == "save it as JPEG or PNG"


def test_jpeg_2000_of_a_million_small_parts_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000)).save(buffer, "JPEG2000", no_jp2=True)
    data = bytearray(buffer.getvalue())
    coding = data.index(b"\xff\x52")
    data[coding + 10 : coding + 12] = b"\0\0"  # code blocks of 4x4
    with pytest.raises(ImageTooLarge, match="small blocks"):
        load(bytes(data))
    data[24:32] = struct.pack(">II", 9, 9)  # tiles
    with pytest.raises(ImageTooLarge, match="tiles"):
        load(bytes(data))


def jpeg_2000_with(segments: bytes) -> bytes:
    """Return a JPEG 2000 with more segments in the header of its tile-part."""
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000)).save(buffer, "JPEG2000", no_jp2=True)
    data = bytearray(buffer.getvalue())
    tile = data.index(b"\xff\x90")
    (length,) = struct.unpack_from(">I", data, tile + 6)
    struct.pack_into(">I", data, tile + 6, length + len(segments))
    data[tile + 12 : tile + 12] = segments
    return bytes(data)


CODING = b"\xff\x52\0\x0c\0\0\0\1\0\5\4\4\0\1"  # 1 layer, 5 levels, code blocks of 64x64


def test_a_tile_of_a_jpeg_2000_may_have_its_own_coding() -> None:
    assert not load(jpeg_2000_with(CODING + b"\xff\x58\0\3\0")).any()


@pytest.mark.parametrize(
    ("segment", "code", "message"),
    [
        (CODING.replace(b"\4\4", b"\0\0"), "ImageTooLarge", "small blocks"),
        (b"\xff\x53\0\x09\0\0\5\0\0\0\1", "ImageTooLarge", "small blocks"),
        (CODING.replace(b"\0\1\0\5", b"\1\1\0\5"), "ImageTooLarge", "256 layers"),
        (CODING[:3] + b"\7" + CODING[4:9], "UnreadableImage", "coding is cut off"),
        (b"\xff\x57\0\3\0", "UnreadableImage", "unsupported marker FF57"),
        (b"\xff\x64\xff\xff", "UnreadableImage", "cut off"),
    ],
)
def test_a_tile_of_a_jpeg_2000_is_checked_as_its_main_header(
    segment: bytes, code: str, message: str
) -> None:
    with pytest.raises(getattr(errors, code), match=message):
        open_picture(jpeg_2000_with(segment))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"%PDF-1.7\n%....", "a PDF"),
        (b"\n<!DOCTYPE html><html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "a pointer of Git LFS"),
        (b"data:image/jpeg;base64,/9j/4AAQ", "a data URI"),
        (b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAUD", "base64 text"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"GIF89a\1\0\1\0", "a GIF"),
        (b"\0\0\0\x20ftypmp42\0\0\0\0mp42isom", "a video"),
    ],
)
def test_what_is_no_picture_is_named_with_the_way_out(data: bytes, named: str) -> None:
    with pytest.raises(UnreadableImage, match=named) as caught:
        load(data)
    assert caught.value.hint != UnreadableImage.hint_default


def test_heic_and_avif_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for brand, kind in ((b"heic", "HEIC"), (b"avif", "AVIF")):
        data = struct.pack(">I", 24) + b"ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(99)
        with pytest.raises(UnreadableImage, match=f"reading {kind} needs") as caught:
            load(data)
        assert "facecore[heif]" in caught.value.hint


def test_heic_is_read_with_the_extra() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.open(io.BytesIO(corpus()[8]))
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=95)
    avif = io.BytesIO()
    image.save(avif, "AVIF", quality=95)
    assert load(avif.getvalue()).shape == load(buffer.getvalue()).shape
    difference = np.abs(load(buffer.getvalue())[:, :, ::-1].astype(int) - np.asarray(image))
    assert difference.mean() < 6
    with pytest.raises(ImageTooLarge):
        load(buffer.getvalue(), Limits(max_pixels=1000))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    with pytest.raises(UnreadableImage, match="a pipe or a device"):
        load(pipe)


# --- fuzz -----------------------------------------------------------------------------------


def test_a_thousand_mutated_pictures() -> None:
    report = run(1000, seed=20, seconds=240)
    assert report.clean, report
    # Enough pictures reach a decoder, and enough fail the checks before it.
    assert 100 < report.outcomes["read"] < 900, report
