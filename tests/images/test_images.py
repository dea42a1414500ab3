"""facecore.images: every input, every limit, every way a file can be damaged."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import subprocess
import sys
import threading
import types
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, features
from skimage.data import astronaut

from facecore import errors
from facecore.errors import FacecoreError, ImageTooLarge, InvalidParameter, UnreadableImage
from facecore.images import DEFAULT_LIMITS, Limits, decode, load, open_picture
from facecore.images.decode import decode_still
from facecore.images.formats import read_still
from tests.images import hostile

RGB = np.ascontiguousarray(astronaut()[40:160, 160:260])  # 120 rows, 100 columns, a face
FACE = Image.fromarray(RGB)
HOPPER = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
ALPHA = np.tile(np.linspace(0, 255, 100).astype(np.uint8), (120, 1))
RGBA = Image.fromarray(np.dstack([RGB, ALPHA]))
ORIENTATIONS = range(1, 9)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def on_white(image: Image.Image) -> np.ndarray:
    """Return the BGR pixels that Pillow alone produces."""
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))[:, :, ::-1]


def oracle(data: bytes) -> np.ndarray:
    return on_white(Image.open(io.BytesIO(data)))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


def check_valid(pixels: np.ndarray) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.size
    assert pixels.flags.c_contiguous


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def png(array: np.ndarray, colour: int, extra: bytes = b"", rows: int | None = None) -> bytes:
    """Write a PNG of a kind that Pillow does not write."""
    height, width = array.shape[:2]
    bits = array.dtype.itemsize * 8
    lines = b"".join(b"\0" + line.tobytes() for line in array[:rows].astype(array.dtype.str))
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([bits, colour, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(lines))
        + png_chunk(b"IEND", b"")
    )


FILES = {
    "jpeg": encode(FACE, "JPEG", quality=92),
    "jpeg progressive": encode(FACE, "JPEG", quality=92, progressive=True),
    "jpeg restarts": encode(FACE, "JPEG", restart_marker_blocks=4),
    "jpeg grey": encode(FACE.convert("L"), "JPEG"),
    "png": encode(FACE, "PNG"),
    "png grey": encode(FACE.convert("L"), "PNG"),
    "png palette": encode(FACE.quantize(64), "PNG"),
    "webp": encode(FACE, "WEBP", quality=90),
    "webp lossless": encode(FACE, "WEBP", lossless=True),
    "bmp": encode(FACE, "BMP"),
    "tiff": encode(FACE, "TIFF"),
    "tiff lzw": encode(FACE, "TIFF", compression="tiff_lzw"),
    "tiff deflate": encode(FACE, "TIFF", compression="tiff_adobe_deflate"),
}
every_file = pytest.mark.parametrize("name", FILES)


# --- pixels ---------------------------------------------------------------------------------


@every_file
def test_pixels_are_those_of_pillow(name):
    pixels = load(FILES[name])
    check_valid(pixels)
    assert pixels.flags.writeable
    # lossy formats may round differently in another build of the codec
    assert difference(pixels, oracle(FILES[name])) <= (
        2 if name.startswith(("jpeg", "webp")) else 0
    )


ALPHA_OR_GREY = {
    "rgba png": encode(RGBA, "PNG"),
    "rgba webp": encode(RGBA, "WEBP", lossless=True, exact=True),
    "rgba tiff": encode(RGBA, "TIFF"),
    "grey alpha png": encode(RGBA.convert("LA"), "PNG"),
    "palette, one transparent": encode(FACE.quantize(64), "PNG", transparency=3),
    "palette, graded": encode(FACE.quantize(64), "PNG", transparency=bytes(range(0, 256, 4))),
    "palette, 4 bits": encode(FACE.quantize(16), "PNG", bits=4),
    "rgb, one transparent": encode(FACE, "PNG", transparency=tuple(map(int, RGB[0, 0]))),
    "grey, one transparent": encode(FACE.convert("L"), "PNG", transparency=int(RGB[9, 9, 0])),
    "1-bit png": encode(FACE.convert("1"), "PNG"),
    "1-bit tiff": encode(FACE.convert("1"), "TIFF", compression="group4"),
    "1-bit bmp": encode(FACE.convert("1"), "BMP"),
    "palette bmp": encode(FACE.quantize(64), "BMP"),
    "cmyk tiff": encode(FACE.convert("CMYK"), "TIFF"),
    "animated webp": encode(FACE, "WEBP", save_all=True, append_images=[RGBA], lossless=True),
    "animated png": encode(FACE, "PNG", save_all=True, append_images=[FACE.transpose(0)]),
    "tiff in strips": cv2.imencode(
        ".tiff", RGB, [cv2.IMWRITE_TIFF_COMPRESSION, 1, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 16]
    )[1].tobytes(),
    "rgba, several bands": encode(RGBA.resize((30, 200)), "PNG"),
    "two-page tiff": encode(FACE, "TIFF", save_all=True, append_images=[FACE.transpose(0)]),
}


@pytest.mark.parametrize("name", ALPHA_OR_GREY)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_every_mode_becomes_bgr_on_white(name):
    pixels = load(ALPHA_OR_GREY[name])
    check_valid(pixels)
    assert difference(pixels, oracle(ALPHA_OR_GREY[name])) <= 1


def test_transparent_pixels_are_white():
    hidden = np.zeros((4, 4, 4), np.uint8)
    assert (load(encode(Image.fromarray(hidden), "PNG")) == 255).all()
    assert (load(Image.fromarray(hidden)) == 255).all()


def wide(values: np.ndarray) -> np.ndarray:
    """16-bit samples that fill the whole range, not only multiples of 257."""
    noise = np.random.default_rng(7).integers(0, 257, values.shape)
    return np.minimum(values.astype(int) * 257 + noise, 65535).astype(np.uint16)


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_16_bit_png_is_scaled_not_clipped(colour):
    grey = RGB[:, :, 1]
    samples = {0: grey, 2: RGB, 4: np.dstack([grey, ALPHA]), 6: np.dstack([RGB, ALPHA])}[colour]
    samples = wide(samples)
    eight = np.rint(samples / 257)
    colours = eight[..., : {0: 1, 2: 3, 4: 1, 6: 3}[colour]] if colour else eight[..., None]
    expected = np.broadcast_to(colours, RGB.shape)
    if colour in (4, 6):
        expected = 255 - (255 - expected) * eight[..., -1:] / 255
    pixels = load(png(samples.astype(">u2"), colour))
    assert difference(pixels, np.rint(expected)[:, :, ::-1]) <= (1 if colour in (4, 6) else 0)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_grey_tiff_and_pil(mode):
    samples = wide(RGB[:, :, 1])
    raw = samples.astype("<u2" if mode == "I;16" else ">u2").tobytes()
    image = Image.frombytes(mode, (100, 120), raw)
    expected = np.repeat(np.rint(samples / 257)[:, :, None], 3, 2)
    assert difference(load(image), expected) == 0
    assert difference(load(encode(image, "TIFF")), expected) == 0


def test_32_bit_grey_only_where_the_scale_is_certain():
    unit = (RGB[:, :, 1] / 255).astype(np.float32)
    expected = np.repeat(RGB[:, :, 1:2], 3, 2)
    assert difference(load(encode(Image.fromarray(unit), "TIFF")), expected) == 0
    assert difference(load(Image.fromarray(RGB[:, :, 1].astype(np.int32) * 257)), expected) == 0
    unit[5, 5] = np.nan
    for bad in (unit, unit + 3, np.full((4, 4), -1, np.int32), np.full((4, 4), 70000, np.int32)):
        with pytest.raises(UnreadableImage, match="scale is not known"):
            load(Image.fromarray(bad))


def grey_tiff(bits: int, photometric: int, kind: int = 1) -> bytes:
    """Return a TIFF whose bits are all 0."""
    tags = {256: 16, 257: 16, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 16, 339: kind}
    return hostile.tiff({tag: (3, [value]) for tag, value in tags.items()}, bytes(32 * bits))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_zero_is_white_or_black_in_a_tiff(bits):
    assert (load(grey_tiff(bits, 0)) == 255).all()
    assert (load(grey_tiff(bits, 1)) == 0).all()


@pytest.mark.parametrize(
    ("bits", "photometric", "kind"),
    [(12, 1, 1), (16, 0, 1), (32, 0, 3), (8, 1, 2), (16, 1, 2)],
)
def test_a_tiff_that_pillow_reads_too_dark_or_inverted_is_refused(bits, photometric, kind):
    with pytest.raises(UnreadableImage, match=f"unsupported pixels: .* {bits} bits") as caught:
        load(grey_tiff(bits, photometric, kind))
    assert caught.value.hint == "save it as JPEG or PNG"


def planar_tiff(planes: int, bits: int, compression: int) -> tuple[bytes, np.ndarray]:
    """Return a TIFF whose channels are separate planes, and its samples (16, 16, planes)."""
    samples = np.random.default_rng(planes).integers(0, 2**bits, (planes, 16, 16))
    stored = [plane.astype(f"<u{bits // 8}").tobytes() for plane in samples]
    if compression == 8:
        stored = [zlib.compress(plane, 0) for plane in stored]  # all of one length
    tags = {256: 16, 257: 16, 259: compression, 262: 2 if planes > 2 else 1, 277: planes,
            278: 16, 284: 2}  # fmt: skip
    several = {258: (4, [bits] * planes)} | ({338: (3, [2])} if planes in (2, 4) else {})
    of_one = hostile.tiff(
        {tag: (3, [value]) for tag, value in tags.items()} | several, stored[0], times=planes
    )
    place, size = len(of_one) - len(stored[0]), len(stored[0])
    apart = np.array([place + k * size for k in range(planes)], "<u4").tobytes()
    data = of_one.replace(struct.pack("<I", place) * planes, apart) + b"".join(stored[1:])
    return data, np.moveaxis(samples, 0, -1)


@pytest.mark.parametrize(("planes", "bits", "compression"), [(3, 8, 1), (3, 8, 8), (3, 16, 8)])
def test_a_tiff_in_planes(planes, bits, compression):
    data, samples = planar_tiff(planes, bits, compression)
    wanted = samples[..., ::-1] / (257 if bits == 16 else 1)
    np.testing.assert_allclose(load(data), wanted, atol=1)  # Pillow takes the upper byte


@pytest.mark.parametrize(("planes", "bits", "compression"), [(3, 16, 1), (4, 16, 1), (2, 8, 8)])
def test_a_tiff_whose_planes_pillow_confuses_is_refused(planes, bits, compression):
    with pytest.raises(UnreadableImage, match=f"{planes} separate planes of {bits}") as caught:
        load(planar_tiff(planes, bits, compression)[0])
    assert caught.value.hint == "save it as JPEG or PNG"


def test_cmyk_jpeg_looks_like_its_original():
    data = encode(FACE.convert("CMYK"), "JPEG", quality=95)  # Pillow writes Adobe's inverted kind
    assert b"Adobe" in data
    pixels = load(data)
    assert difference(pixels, oracle(data)) <= 2
    assert np.abs(pixels[:, :, ::-1].astype(int) - RGB).mean() < 4


def test_grace_hopper_by_every_kind_of_input():
    data = HOPPER.read_bytes()
    expected = oracle(data)
    inputs = [
        HOPPER, str(HOPPER), data, bytearray(data), memoryview(data), io.BytesIO(data),
        memoryview(np.frombuffer(data, np.uint8).repeat(2))[::2], Image.open(HOPPER),
    ]  # fmt: skip
    for image in inputs:
        assert difference(load(image), expected) <= 2
    with HOPPER.open("rb") as file:
        assert difference(load(file), expected) <= 2
        assert not file.closed
    with HOPPER.open("rb", buffering=0) as file:
        assert difference(load(file), expected) <= 2


# --- orientation ----------------------------------------------------------------------------


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_eight_orientations(kind, options, orientation):
    data = encode(FACE, kind, exif=exif(orientation), **options)
    expected = oracle(data)
    assert expected.shape == ((120, 100, 3) if orientation < 5 else (100, 120, 3))
    assert difference(load(data), expected) <= 2
    assert difference(load(Image.open(io.BytesIO(data))), expected) <= 2


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_of_other_paths(orientation):
    grey16 = Image.frombytes("I;16", (100, 120), wide(RGB[:, :, 1]).tobytes())
    turned = oracle(encode(Image.fromarray(RGB[:, :, 1]), "PNG", exif=exif(orientation)))
    for image in (encode(grey16, "PNG", exif=exif(orientation)),
                  encode(grey16, "TIFF", exif=exif(orientation))):  # fmt: skip
        assert difference(load(image), turned) <= 1
    cmyk = encode(FACE.convert("CMYK"), "JPEG", exif=exif(orientation))
    assert difference(load(cmyk), oracle(cmyk)) <= 2
    pages = encode(FACE, "TIFF", exif=exif(orientation), save_all=True, append_images=[FACE])
    assert difference(load(pages), oracle(pages)) == 0


def test_png_orientation_after_the_pixels():
    data = encode(FACE, "PNG")
    chunk = png_chunk(b"eXIf", exif(6).tobytes()[6:])
    late = data[:-12] + chunk + data[-12:]
    assert difference(load(late), oracle(late)) == 0
    assert load(late).shape == (100, 120, 3)


@pytest.mark.parametrize("packed", [False, True])
def test_png_orientation_in_a_profile_as_text(packed):  # as ImageMagick writes it
    raw = exif(6).tobytes()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=packed)
    data = encode(FACE, "PNG", pnginfo=info)
    for image in (data, Image.open(io.BytesIO(data))):
        assert difference(load(image), oracle(data)) == 0
        assert load(image).shape == (100, 120, 3)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_of_avif(orientation, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", types.ModuleType("pillow_heif"))
    data = encode(FACE, "AVIF", exif=exif(orientation))
    picture = open_picture(data)
    assert (picture.height, picture.width) == oracle(data).shape[:2]
    assert difference(picture.pixels(), oracle(data)) <= 2


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_upright(orientation):
    assert load(encode(FACE, "JPEG", exif=exif(orientation))).shape == (120, 100, 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns, then continues
def test_damaged_exif_is_upright():
    for block in (
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0??" * 9,
    ):
        assert load(encode(FACE, "JPEG", exif=block)).shape == (120, 100, 3)


# --- limits ---------------------------------------------------------------------------------


def test_defaults():
    assert Limits() == DEFAULT_LIMITS
    assert DEFAULT_LIMITS.max_bytes == 20 * 2**20
    assert DEFAULT_LIMITS.max_pixels < Image.MAX_IMAGE_PIXELS  # Pillow never has to warn


@pytest.mark.parametrize("value", [0, -1, 1.5, "9", None, True])
@pytest.mark.parametrize("name", ["max_bytes", "max_pixels"])
def test_limits_are_positive_integers(name, value):
    with pytest.raises(InvalidParameter, match=name):
        Limits(**{name: value})


def test_byte_limit_is_exact_for_every_kind_of_input(tmp_path):
    data = FILES["jpeg"]
    path = tmp_path / "face.jpg"
    path.write_bytes(data)
    tight, short = Limits(max_bytes=len(data)), Limits(max_bytes=len(data) - 1)
    for make in (lambda: data, lambda: bytearray(data), lambda: memoryview(data), lambda: path,
                 lambda: str(path), lambda: io.BytesIO(data)):  # fmt: skip
        assert load(make(), tight).shape == (120, 100, 3)
        with pytest.raises(ImageTooLarge, match=f"{len(data) - 1:,}"):
            load(make(), short)


class Endless(io.RawIOBase):
    def __init__(self):
        self.given = 0

    def read(self, size=-1):
        self.given += (size := min(size, 4096))
        return b"\xff" * size


def test_endless_stream_is_read_no_further_than_the_limit():
    stream = Endless()
    with pytest.raises(ImageTooLarge, match="100,000 bytes"):
        load(stream, Limits(max_bytes=100_000))
    assert stream.given == 100_001


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_a_device_is_not_read():
    with pytest.raises(UnreadableImage, match="a device, not a file"):
        load("/dev/zero", Limits(max_bytes=100_000))


@every_file
def test_pixel_limit_is_exact(name):
    data = FILES[name]
    for image in (data, Image.open(io.BytesIO(data)), load(data)):
        assert load(image, Limits(max_pixels=12_000)).shape == (120, 100, 3)
        message = r"12,000 pixels \(100×120\) exceed the limit of 11,999"
        with pytest.raises(ImageTooLarge, match=message):
            load(image, Limits(max_pixels=11_999))


@pytest.mark.parametrize("size", [(30_000, 30_000), (9_500, 9_500), (65_500, 65_500)])
@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, Limits(max_pixels=1)])
def test_bombs_are_refused_by_their_header(size, limits):
    bomb = bytearray(FILES["png"])
    bomb[16:24] = size[0].to_bytes(4) + size[1].to_bytes(4)
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4)
    jpeg = bytearray(FILES["jpeg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = size[1].to_bytes(2) + size[0].to_bytes(2)
    for data in (bomb, jpeg):
        with pytest.raises(ImageTooLarge, match=r"pixels \(.*×.*\) exceed the limit"):
            load(data, limits)


def test_webp_bomb():
    data = bytearray(FILES["webp lossless"])
    assert data[12:16] == b"VP8L"
    data[21:25] = (16382 | 16382 << 14).to_bytes(4, "little")
    with pytest.raises(FacecoreError):
        load(data)


def with_frame(change):
    """Return FILES["jpeg"] with its frame header, from the marker on, changed by `change`."""
    data = FILES["jpeg"]
    start = data.index(b"\xff\xc0")
    stop = start + 2 + int.from_bytes(data[start + 2 : start + 4])
    return data[:start] + change(data[start:stop]) + data[stop:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: b"", "no frame"),
        (lambda frame: frame[:2] + b"\0\2", "frame header is cut off"),
        (lambda frame: frame[:2] + b"\0\7" + frame[4:9], "frame header is cut off"),
        (lambda frame: frame[:4] + b"\x0c" + frame[5:], "3 components of 12 bits"),
        (lambda frame: frame[:9] + b"\2" + frame[10:], "2 components of 8 bits"),
        (lambda frame: frame[:5] + b"\0\0" + frame[7:], "no pixels"),
    ],
)
def test_jpeg_with_a_bad_frame_header(change, message):
    with pytest.raises(UnreadableImage, match=message):
        load(with_frame(change))


def test_jpeg_cut_off_within_its_frame_header():
    data = FILES["jpeg"]
    with pytest.raises(UnreadableImage, match="frame header is cut off"):
        load(data[: data.index(b"\xff\xc0") + 7])


def test_jpeg_frame_after_fill_bytes_and_junk():
    data = with_frame(lambda frame: b"\xff\xff\xff" + frame)
    np.testing.assert_array_equal(load(data), load(FILES["jpeg"]))


def test_other_metadata_do_not_hide_the_orientation():
    data = encode(FACE, "JPEG", exif=exif(6))
    odd = b"\xff\xe2\0\x0eICC_PROFILE\0"  # without the number that Pillow expects
    for start in (2, data.index(b"\xff\xdb")):
        assert load(data[:start] + odd + data[start:]).shape == (100, 120, 3)


def test_jpeg_with_thousands_of_scans():
    data = FILES["jpeg progressive"]
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageTooLarge, match="scans"):
        load(data[:-2] + data[last:-2] * 1000 + data[-2:])


# --- damage ---------------------------------------------------------------------------------


@every_file
def test_truncation_is_always_refused(name, capfd):
    data = FILES[name]
    cuts = {1, 2, 8, 20, 40, *np.linspace(1, len(data) - 1, 40).astype(int), len(data) - 1}
    cuts |= {len(data) * percent // 100 for percent in (10, 50, 90, 99)}
    whole = load(data)
    for cut in sorted(int(cut) for cut in cuts):
        if name.startswith("jpeg") and name != "jpeg progressive" and cut >= len(data) - 2:
            assert np.array_equal(load(data[:cut]), whole)  # all blocks are there
            continue
        with pytest.raises(UnreadableImage):
            load(data[:cut])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "png", "webp"])
def test_truncation_of_a_larger_file(name):
    kind = name.split()[0].upper()
    data = encode(Image.open(HOPPER), kind, **({"progressive": True} if " " in name else {}))
    for cut in np.linspace(100, len(data) - 3, 25).astype(int):
        with pytest.raises(UnreadableImage):
            load(data[: int(cut)])


@every_file
def test_trailing_bytes_do_no_harm(name):
    for tail in (b"\0", b"garbage" * 99, FILES["jpeg"], b"\xff\xd9\xff"):
        assert np.array_equal(load(FILES[name] + tail), load(FILES[name]))


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "png", "png palette"])
def test_a_lost_tail_of_zeros_is_refused(name):  # an interrupted download into a preallocated file
    data = FILES[name]
    with pytest.raises(UnreadableImage):
        load(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def test_thumbnail_does_not_end_the_picture():
    thumbnail = encode(FACE.resize((40, 48)), "JPEG")
    data = FILES["jpeg"]
    app = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail
    data = data[:2] + app + data[2:]
    assert load(data).shape == (120, 100, 3)
    with pytest.raises(UnreadableImage, match="cut off"):
        load(data[:-3])


def test_mpo_gives_the_first_picture():
    data = encode(FACE, "MPO", save_all=True, append_images=[FACE.transpose(0)])
    assert difference(load(data), oracle(data)) <= 2


def test_every_flipped_byte_of_a_png_is_found(capfd):
    data = FILES["png"]
    for position in range(8, len(data), 97):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        with pytest.raises(UnreadableImage):
            load(damaged)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive"])
@pytest.mark.parametrize("marker", [b"\xff\x3a", b"\xff\xd8", b"\xff\xc0"])
def test_jpeg_with_a_foreign_marker_inside_its_pixels(name, marker):
    data = FILES[name]
    spot = data.rindex(b"\xff\xda") + 60
    with pytest.raises(UnreadableImage, match="damaged: marker"):
        load(data[:spot] + marker + data[spot + 2 :])


def jpeg_in_scans(scans: list[int]) -> bytes:
    """Return a sequential JPEG with one scan for each of these components, without an end."""
    planes = [encode(plane, "JPEG", quality=90) for plane in FACE.convert("YCbCr").split()]
    frame, start = planes[0].index(b"\xff\xc0"), planes[0].index(b"\xff\xda")
    header = planes[0][:frame] + b"\xff\xc0\0\x11\x08\0\x78\0\x64\3"
    header += b"\1\x11\0\2\x11\0\3\x11\0" + planes[0][frame + 13 : start]
    pixels = [plane[plane.index(b"\xff\xda") + 6 : -2] for plane in planes]
    return header + b"".join(b"\xff\xda\0\x08\1" + bytes([i + 1]) + pixels[i] for i in scans)


def test_jpeg_with_a_scan_for_each_component():
    for end in (b"\xff\xd9", b""):
        pixels = load(jpeg_in_scans([0, 1, 2]) + end)
        assert np.abs(pixels[:, :, ::-1].astype(int) - RGB).mean() < 4


@pytest.mark.parametrize("scans", [[0], [0, 1], [1, 2], [0, 1, 1]])
@pytest.mark.parametrize("end", [b"\xff\xd9", b"", bytes(900)])
def test_jpeg_that_lost_the_scan_of_a_component(scans, end):
    with pytest.raises(UnreadableImage, match="a component has no scan"):
        load(jpeg_in_scans(scans) + end)


def test_tiff_whose_strips_do_not_cover_the_image():
    data = bytearray(FILES["tiff"])
    height = re.search(rb"\x01\x01[\x03\x04]\0\x01\0\0\0", data).end()  # tag 257, ImageLength
    assert data[height] == 120
    data[height] = 240
    with pytest.raises(UnreadableImage, match="cover"):
        load(data)


def test_two_parsers_must_agree_on_the_size(monkeypatch):
    for name in ("png", "tiff"):
        still = replace(read_still(FILES[name], DEFAULT_LIMITS), width=10, height=10)
        with pytest.raises(UnreadableImage, match="damaged"):
            decode_still(still, 1)
    monkeypatch.setattr(decode, "from_pillow", lambda image: np.zeros((100, 120, 3), np.uint8))
    with pytest.raises(UnreadableImage, match="its size is ambiguous"):
        load(FILES["tiff"])


def test_png_with_rows_missing():
    with pytest.raises(UnreadableImage):
        load(png(RGB, 2, rows=50))  # every checksum is right


@pytest.mark.parametrize(
    "data",
    [b"GIF89a" + bytes(99), b"%PDF-1.7", b"<svg xmlns=''/>", b"hello", b"\xff", bytes(1000), b"BM"],
)
def test_other_formats_are_refused(data):
    with pytest.raises(UnreadableImage):
        load(data)


def test_gif_is_refused():
    with pytest.raises(UnreadableImage, match="a GIF"):
        load(encode(FACE.quantize(16), "GIF"))


def only_facecore_errors(data: bytes) -> None:
    try:
        pixels = load(data, Limits(max_pixels=4_000_000))
    except (UnreadableImage, ImageTooLarge):
        return
    check_valid(pixels)


quick = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
SIGNATURES = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8 ", b"II*\0\x08\0\0\0",
              b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0", b"BM", b""]  # fmt: skip


@quick
@given(st.sampled_from(SIGNATURES), st.binary(max_size=300))
def test_fuzz_random_bytes(signature, tail):
    only_facecore_errors(signature + tail)


@every_file
@settings(quick, max_examples=40)
@given(data=st.data())
def test_fuzz_flipped_bytes(name, data):
    damaged = bytearray(FILES[name])
    # headers are where parsers break: half of the flips go there
    spot = st.integers(0, min(400, len(damaged) - 1)) | st.integers(0, len(damaged) - 1)
    for position in data.draw(st.lists(spot, min_size=1, max_size=5)):
        damaged[position] ^= data.draw(st.integers(1, 255))
    only_facecore_errors(bytes(damaged))


@every_file
@settings(quick, max_examples=20)
@given(data=st.data())
def test_fuzz_cut_and_pasted(name, data):
    file = FILES[name]
    spots = st.integers(0, len(file))
    a, b = sorted((data.draw(spots), data.draw(spots)))
    only_facecore_errors(file[:a] + data.draw(st.binary(max_size=20)) + file[b:])


def test_decoder_errors_keep_their_cause():
    with pytest.raises(UnreadableImage) as caught:
        load(FILES["tiff lzw"][:3000] + bytes(900) + FILES["tiff lzw"][3900:])
    assert isinstance(caught.value.__cause__, OSError)


def test_a_pil_image_whose_file_is_damaged():
    with pytest.raises(UnreadableImage):
        load(Image.open(io.BytesIO(FILES["jpeg"][:-500])))
    with pytest.raises(UnreadableImage):
        load(Image.new("RGB", (0, 5)))


# --- paths and streams ----------------------------------------------------------------------


def test_paths_that_cannot_be_read(tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(UnreadableImage, match="no such file"):
        load(tmp_path / "missing.jpg")
    for path in (tmp_path, "a\0b", "x" * 100_000, ""):
        with pytest.raises(UnreadableImage):
            load(path)
    with pytest.raises(UnreadableImage, match="empty"):
        load(empty)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_path_without_permission(tmp_path):
    path = tmp_path / "secret.jpg"
    path.write_bytes(FILES["jpeg"])
    path.chmod(0)
    with pytest.raises(UnreadableImage, match="ermission"):
        load(path)


@pytest.mark.parametrize("url", ["https://a.b/c.jpg", "HTTP://a", "file:///x"])
def test_urls_are_never_downloaded(url):
    with pytest.raises(UnreadableImage, match="never downloads"):
        load(url)


def test_a_data_uri_is_no_path():
    with pytest.raises(UnreadableImage, match="data URI"):
        load("data:image/png;base64,iVBORw0KGgo=")


def test_a_stream_is_read_from_where_it_stands():
    stream = io.BytesIO(b"header!" + FILES["png"])
    stream.seek(7)
    assert np.array_equal(load(stream), RGB[:, :, ::-1])
    with pytest.raises(UnreadableImage, match=r"seek\(0\)"):
        load(stream)


def test_a_pipe_that_delivers_little_at_a_time():
    reader, writer = os.pipe()

    def send():
        with open(writer, "wb", buffering=0) as file:
            for start in range(0, len(FILES["png"]), 1000):
                file.write(FILES["png"][start : start + 1000])

    thread = threading.Thread(target=send)
    thread.start()
    with open(reader, "rb", buffering=0) as file:
        assert np.array_equal(load(file), RGB[:, :, ::-1])
    thread.join()


class Broken:
    def __init__(self, answer):
        self.answer = answer

    def read(self, size):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_broken_streams():
    for answer in (OSError("gone"), RuntimeError("boom"), None, b""):
        with pytest.raises(UnreadableImage):
            load(Broken(answer))
    with pytest.raises(InvalidParameter, match="binary mode"):
        load(io.StringIO("text"))
    closed = io.BytesIO(FILES["png"])
    closed.close()
    with pytest.raises(UnreadableImage, match="closed"):
        load(closed)


@pytest.mark.parametrize("data", [b"", bytearray(), memoryview(b"")])
def test_empty_bytes(data):
    with pytest.raises(UnreadableImage, match="empty"):
        load(data)


@pytest.mark.parametrize("thing", [None, 7, 1.5, [1, 2], {}, object(), (RGB,), np.uint8(3)])
def test_wrong_types_name_what_is_accepted(thing):
    with pytest.raises(InvalidParameter, match=r"give a path, bytes.*PIL\.Image"):
        load(thing)


# --- PIL images and arrays ------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"]
)
def test_pil_modes_and_the_callers_object_is_unchanged(mode):
    source = RGBA if mode in ("LA", "PA", "RGBA", "RGBa") else FACE
    image = source.convert("LA").convert("PA") if mode == "PA" else source.convert(mode)
    before = (image.mode, image.size, image.tobytes(), dict(image.info))
    assert difference(load(image), on_white(image)) <= 1
    assert (image.mode, image.size, image.tobytes(), dict(image.info)) == before


@pytest.mark.skipif(not features.check("littlecms2"), reason="Pillow without LittleCMS")
def test_a_lab_image_is_converted_or_refused():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(FACE, srgb, lab, outputMode="LAB")
    with contextlib.suppress(UnreadableImage):
        check_valid(load(image))


def test_pil_orientation_does_not_turn_the_callers_object():
    image = Image.open(io.BytesIO(encode(FACE, "JPEG", exif=exif(6))))
    assert load(image).shape == (100, 120, 3)
    assert image.size == (100, 120)
    assert image.getexif()[0x0112] == 6
    assert np.array_equal(load(image), load(image))
    assert load(ImageOps.exif_transpose(image)).shape == (100, 120, 3)  # not turned twice


def test_contiguous_arrays_are_not_copied():
    array = np.ascontiguousarray(RGB[:, :, ::-1])
    assert load(array) is array
    array.setflags(write=False)
    assert load(array) is array
    flipped = array[::-1]
    check_valid(load(flipped))
    assert np.array_equal(load(flipped), flipped)


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (RGB[:, :, 0], "GRAY2BGR"),
        (RGB[:, :, :1], "GRAY2BGR"),
        (np.dstack([RGB, ALPHA]), "BGRA2BGR"),
        (RGB.transpose(2, 0, 1), "transpose"),
        (RGB[None], "one image at a time"),
        (RGB / 255, "astype"),
        (RGB.astype(np.int8), "astype"),
        (np.array(None), "astype"),
        (np.array("x.jpg"), "astype"),
    ],
)
def test_other_arrays_say_how_to_convert(array, hint):
    with pytest.raises(InvalidParameter, match=hint):
        load(array)


@pytest.mark.parametrize("shape", [(0,), (0, 5, 3), (5, 0, 3), (5, 5, 0)])
def test_arrays_without_pixels(shape):
    with pytest.raises(UnreadableImage, match="no pixels"):
        load(np.zeros(shape, np.uint8))


@quick
@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from(ORIENTATIONS), st.randoms())
def test_lossless_formats_round_trip_at_any_size(height, width, orientation, random):
    pixels = np.frombuffer(random.randbytes(height * width * 3), np.uint8)
    image = Image.fromarray(pixels.reshape(height, width, 3))
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encode(image, kind, exif=exif(orientation), **options)
        assert np.array_equal(load(data), oracle(data))


# --- the module -----------------------------------------------------------------------------


def test_import_is_cheap():
    folder = str(Path(errors.__file__).parent)
    code = (  # this package alone, without the imports of facecore/__init__.py
        "import sys, types\n"
        "package = sys.modules['facecore'] = types.ModuleType('facecore')\n"
        f"package.__path__ = [{folder!r}]\n"
        "import facecore.images\n"
        "print({'cv2', 'PIL', 'skimage'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_loading_from_many_threads():
    failures = []

    def work():
        for name in FILES:
            pixels = load(FILES[name])
            if not np.array_equal(pixels, load(FILES[name])):
                failures.append(name)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
