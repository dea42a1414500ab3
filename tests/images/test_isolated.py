"""facecore.images.isolated: this process gets an answer even if the other one fails."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from facecore import FaceEngine
from facecore.errors import FacecoreError, ImageTooLarge, InvalidParameter, UnreadableImage
from facecore.images import IsolatedDecoder, Limits, isolated, load, open_picture
from facecore.images.formats import Still, heif
from facecore.images.isolated import _Child
from tests.images import hostile
from tests.images.fuzzing import LIMITS, corpus

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs limits on processes")


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder(1)
    yield decoder
    decoder.close()


def answer(data: bytes, *decoder: IsolatedDecoder) -> object:
    try:
        return load(data, LIMITS, *decoder).tobytes()
    except FacecoreError as error:
        return error.code, error.message, error.hint


def test_the_same_pixels_and_the_same_errors(decoder: IsolatedDecoder) -> None:
    for data in corpus():
        for picture in (data, data[:-30]):
            assert answer(picture, decoder) == answer(picture)
    large = np.random.default_rng(0).integers(0, 255, (800, 640, 3)).astype(np.uint8)
    import cv2

    data = cv2.imencode(".jpg", large)[1].tobytes()
    for scale in (1.0, 0.5, 0.1):
        pixels, reduction = open_picture(data, decoder=decoder).reduced(scale)
        expected, other = open_picture(data).reduced(scale)
        assert np.array_equal(pixels, expected)
        assert reduction == other


def test_a_picture_that_ends_the_process_is_an_error_and_the_next_one_is_read(
    decoder: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(corpus()[0], decoder=decoder)
    child = decoder._idle[0]
    send = isolated._send

    def kill(*arguments: object) -> None:
        os.kill(child._process.pid, signal.SIGSTOP)
        send(*arguments)
        os.kill(child._process.pid, signal.SIGSEGV)
        os.kill(child._process.pid, signal.SIGCONT)

    monkeypatch.setattr(isolated, "_send", kill)
    with pytest.raises(UnreadableImage, match=r"ended the decoding process \(SIGSEGV\)"):
        load(corpus()[0], decoder=decoder)
    monkeypatch.undo()
    assert np.array_equal(load(corpus()[0], decoder=decoder), load(corpus()[0]))
    assert decoder._idle[0] is not child


def test_a_process_that_ends_after_it_has_read_all_is_an_error_of_the_connection(
    decoder: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(ConnectionError):
        isolated._receive_into(ours, memoryview(bytearray(1)))

    def closed(*_: object) -> None:
        raise ConnectionError("closed")

    load(corpus()[0], decoder=decoder)
    decoder._idle[0]._process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(isolated, "_receive_into", closed)
    with pytest.raises(UnreadableImage, match="decoding process"):
        load(corpus()[0], decoder=decoder)


def test_a_process_that_died_between_two_pictures_is_replaced(decoder: IsolatedDecoder) -> None:
    load(corpus()[0], decoder=decoder)
    process = decoder._idle[0]._process
    process.kill()
    process.wait()
    assert load(corpus()[0], decoder=decoder).ndim == 3


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = IsolatedDecoder(1, seconds=0.2)
    monkeypatch.setattr(isolated, "_PATIENCE", 5.0)
    load(corpus()[0], decoder=decoder)
    process = decoder._idle[0]._process
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(UnreadableImage, match="not decoded within 1 seconds"):
        load(corpus()[0], decoder=decoder)
    assert process.poll() == -signal.SIGKILL
    decoder.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_process_is_limited() -> None:
    decoder = IsolatedDecoder(1, Limits(max_memory=2**20))
    # 900 MB of pixels, as if the header had not announced them.
    wide = hostile.png(hostile.header(15_000, 15_000, 8, 6), hostile.chunk(b"IDAT", bytes(9)))
    with pytest.raises((ImageTooLarge, UnreadableImage)):
        decoder(Still("PNG", wide, 15_000, 15_000, 0), 1)
    resources = Path(f"/proc/{decoder._idle[0]._process.pid}/limits").read_text()
    (line,) = (line for line in resources.splitlines() if line.startswith("Max address space"))
    assert int(line.split()[3]) < 4 * 2**30
    decoder.close()


def shared_memory() -> tuple[int, int]:
    """Count the mappings and the open files of shared memory in this process."""
    found = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
    files = sum("memfd:facecore" in name for name in found)
    return Path("/proc/self/maps").read_text().count("memfd:facecore"), files


@pytest.mark.parametrize("shared", [True, False])
def test_pictures_larger_than_the_shared_memory(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large pixels, large files and systems without shared memory use the socket."""
    import cv2

    if not shared:
        monkeypatch.setattr(isolated, "_share", lambda: (None, memoryview(b"")))
    decoder = IsolatedDecoder(1)
    noise = np.random.default_rng(0).integers(0, 255, (1800, 1600, 3)).astype(np.uint8)
    assert noise.nbytes > isolated._SHARED
    for pixels in (noise, np.full_like(noise, 9), noise[:50, :50]):
        data = cv2.imencode(".png", pixels)[1].tobytes()
        assert np.array_equal(load(data, decoder=decoder), pixels)
    decoder.close()


def test_a_heic_is_opened_in_the_other_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image, buffer = Image.open(io.BytesIO(corpus()[8])), io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=95)
    plain = load(buffer.getvalue())
    monkeypatch.setattr(heif, "open_heif", lambda data: pytest.fail("libheif runs in this process"))
    decoder = IsolatedDecoder(1)
    assert np.array_equal(load(buffer.getvalue(), decoder=decoder), plain)
    with pytest.raises(UnreadableImage):
        load(buffer.getvalue()[:60], decoder=decoder)
    assert np.array_equal(load(buffer.getvalue(), decoder=decoder), plain)
    decoder.close()


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_a_turned_avif_comes_back_in_its_upright_shape(
    decoder: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pillow_heif.py").touch()  # only its presence matters for AVIF
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "pillow_heif", types.ModuleType("pillow_heif"))
    turned, buffer = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6
    Image.open(io.BytesIO(corpus()[8])).save(buffer, "AVIF", exif=turned)
    decoder.close()  # the next process sees the new path
    pixels = load(buffer.getvalue(), decoder=decoder)
    assert pixels.shape == (56, 40, 3)
    assert np.array_equal(pixels, load(buffer.getvalue()))


@pytest.mark.parametrize("path", ["", "."])
def test_the_working_directory_is_not_imported_from(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", path)
    decoder = IsolatedDecoder(1)
    assert np.array_equal(load(corpus()[0], decoder=decoder), load(corpus()[0]))
    decoder.close()


def test_no_socket_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", exhausted)
    with pytest.raises(FacecoreError, match="Too many open files"):
        load(corpus()[0], decoder=IsolatedDecoder(1))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_killed_while_they_decode_leave_no_shared_memory() -> None:
    before = shared_memory()
    decoder = IsolatedDecoder(2)
    for _ in range(3):
        pictures = [open_picture(data, decoder=decoder) for data in corpus()[:2]]
        decoder.decode_together(pictures, [1, 1])
        assert shared_memory()[0] == before[0] + 2
        children = [child._process for child in decoder._idle]
        for process in children:
            process.send_signal(signal.SIGSTOP)
        pictures = [open_picture(data, decoder=decoder) for data in corpus()[:2]]
        killer = threading.Timer(0.3, list, [map(subprocess.Popen.kill, children)])
        killer.start()
        decoder.decode_together(pictures, [1, 1])
        killer.join()
        for picture in pictures:
            with pytest.raises(UnreadableImage, match="ended the decoding process"):
                picture.pixels()
        assert shared_memory() == before
    assert np.array_equal(load(corpus()[0], decoder=decoder), load(corpus()[0]))
    decoder.close()
    assert shared_memory() == before


@pytest.mark.skipif(sys.platform != "linux", reason="no sealed files elsewhere")
def test_a_hostile_process_cannot_do_more_than_give_wrong_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It can neither resize the memory nor choose the shape, nor change pixels afterwards."""
    code = """
import json, mmap, os, socket, sys
sys.path[:] = json.loads(sys.argv[1])
from facecore.images import isolated
connection, file = socket.socket(fileno=int(sys.argv[4])), int(sys.argv[5])
for size in (0, 2**30):
    try:
        os.ftruncate(file, size)
        sys.exit("resized")
    except PermissionError:
        pass
memory = mmap.mmap(file, 0)
isolated._send(connection, {"ready": True})
connection.recv(1)
memory[:] = bytes([7]) * len(memory)
isolated._send(connection, {"shape": [9999, 9999, 3], "height": 1, "size": 10**12})
while connection.recv(2**20):
    memory[:] = bytes([8]) * len(memory)
"""
    monkeypatch.setattr(isolated, "_CODE", code)
    decoder = IsolatedDecoder(1)
    pixels = load(corpus()[0], decoder=decoder)
    (child,) = decoder._idle
    child._shared[:9] = bytes(9)
    assert pixels.shape == load(corpus()[0]).shape
    assert np.all(pixels == 7)
    decoder.close()


def test_pictures_are_decoded_together_where_processes_are_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[str] = []
    send, receive = _Child.send, _Child.receive

    def noted(step: str, do: Any) -> Any:
        return lambda *given: (steps.append(step), do(*given))[1]

    monkeypatch.setattr(_Child, "send", noted("send", send))
    monkeypatch.setattr(_Child, "receive", noted("receive", receive))
    decoder = IsolatedDecoder(2)
    data = corpus()[:3]
    pictures = [open_picture(one, decoder=decoder) for one in data]
    decoder.decode_together(pictures, [1] * 3)
    assert steps == ["send", "send", "receive", "receive"]
    assert [bool(picture.nbytes) for picture in pictures] == [True, True, False]
    assert len(decoder._idle) == 2
    for picture, one in zip(pictures, data, strict=True):
        assert np.array_equal(picture.pixels(), load(one))
    decoder.decode_together(pictures, [1] * 3)  # nothing is left to do
    assert len(steps) == 6
    decoder.close()


def test_decoding_together_waits_for_no_process() -> None:
    """Calls that hold one process while they wait for another could deadlock."""
    decoder = IsolatedDecoder(1)
    pictures = [open_picture(data, decoder=decoder) for data in corpus()[:2]]
    with decoder._borrowed(), decoder._free:
        decoder.decode_together(pictures, [1, 1])
    assert not any(picture.nbytes for picture in pictures)
    decoder.decode_together(pictures, [1, 1])
    assert pictures[0].nbytes
    assert np.array_equal(pictures[1].pixels(), load(corpus()[1]))
    decoder.close()


def test_an_error_stays_with_its_picture_and_a_lost_answer_ends_its_process() -> None:
    decoder = IsolatedDecoder(2)
    data = [corpus()[0][:-30], corpus()[1]]
    pictures = [open_picture(one, decoder=decoder) for one in data]
    decoder.decode_together(pictures, [1, 1])
    for _ in range(2):
        with pytest.raises(UnreadableImage):
            pictures[0].pixels()
    assert np.array_equal(pictures[1].pixels(), load(data[1]))
    children = list(decoder._idle)
    assert len(children) == 2  # both continue
    with contextlib.suppress(KeyboardInterrupt), decoder._borrowed() as child:
        child.send(Still("BMP", corpus()[0], 9, 9, 0), 1)
        raise KeyboardInterrupt
    assert not child.alive()
    assert child not in decoder._idle
    assert np.array_equal(load(data[1], decoder=decoder), load(data[1]))
    decoder.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("b'[' * 60000", "invalid answer"),
        (r"""b'{"error": "UnreadableImage", "message": "\\ud800"}'""", r"^\?$"),
        ("""b'{"error": ["no text"]}'""", "^$"),
        ("None", r"exit status -40"),
        ("''", "within 1.5 seconds"),
    ],
)
def test_answers_of_a_hostile_process(
    answer: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nested too deep; a lone surrogate; no message; a signal without a name; byte by byte."""
    code = f"""
import json, os, socket, sys, time
sys.path[:] = json.loads(sys.argv[1])
from facecore.images import isolated
connection = socket.socket(fileno=int(sys.argv[4]))
isolated._send(connection, {{"ready": True}})
connection.recv(1)
answer = {answer}
if answer is None:
    os.kill(os.getpid(), 40)
if answer:
    connection.sendall(len(answer).to_bytes(8) + answer)
connection.sendall((2**16).to_bytes(8))
while True:
    connection.sendall(b" ")
    time.sleep(0.1)
"""
    monkeypatch.setattr(isolated, "_CODE", code)
    decoder = IsolatedDecoder(1, seconds=0.5)
    with pytest.raises(UnreadableImage) as caught:
        load(corpus()[0], decoder=decoder)
    assert re.search(message, caught.value.message)
    decoder.close()


def test_many_threads_share_the_processes() -> None:
    decoder, failures = IsolatedDecoder(2), []

    def work(data: bytes, expected: object) -> None:
        for _ in range(5):
            if answer(data, decoder) != expected:
                failures.append(data)

    tasks = [(data, answer(data)) for data in corpus()[:12]]
    threads = [threading.Thread(target=work, args=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert 1 <= len(decoder._idle) <= 2
    decoder.close()


def in_child(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=hostile.FOLDER,
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit the address space")
def test_hard_limits_of_the_system_and_unlimited_memory_end_no_process() -> None:
    in_child(
        "import resource\n"
        "from facecore.images import IsolatedDecoder, Limits, load\n"
        "from tests.images.fuzzing import corpus\n"
        "for limit in (None, resource.RLIMIT_CPU, resource.RLIMIT_AS):\n"
        "    if limit is not None:\n"
        "        resource.setrlimit(limit, (2**36, 2**36))\n"
        "    decoder = IsolatedDecoder(1, Limits(max_memory=2**64))\n"
        "    load(corpus()[0], decoder=decoder)\n"
        "    decoder.close()\n"
    )


def test_closed_standard_streams_are_no_obstacle() -> None:
    in_child(
        "import os\n"
        "from facecore.images import IsolatedDecoder, load\n"
        "from tests.images.fuzzing import corpus\n"
        "os.close(0)\n"
        "os.close(1)\n"
        "decoder = IsolatedDecoder(1)\n"
        "load(corpus()[0], decoder=decoder)\n"
        "decoder.close()\n"
        "os._exit(0)\n"
    )


def test_a_fork_has_processes_of_its_own_and_they_end_with_their_parent() -> None:
    code = (
        "import gc, os\n"
        "from facecore.images import IsolatedDecoder, load\n"
        "from tests.images.fuzzing import corpus\n"
        "decoder = IsolatedDecoder(1)\n"
        "load(corpus()[0], decoder=decoder)\n"
        "first = decoder._idle[0]._process.pid\n"
        "child = os.fork()\n"
        "load(corpus()[1], decoder=decoder)\n"
        "if child == 0:\n"
        "    assert decoder._idle[0]._process.pid != first\n"
        "    decoder.close()\n"
        "    gc.collect()\n"
        "    maps = '/proc/self/maps'\n"
        "    assert not os.path.exists(maps) or 'memfd:facecore' not in open(maps).read()\n"
        "    os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "assert decoder._idle[0]._process.pid == first\n"
        "load(corpus()[1], decoder=decoder)\n"
        "print(first)\n"
    )
    first = int(in_child(code))
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


@pytest.mark.parametrize(
    "arguments",
    [{"processes": 0}, {"processes": 1.5}]
    + [{"seconds": number} for number in (0, -1, math.nan, math.inf, 1e10, "9", None)],
)
def test_numbers_must_be_positive_and_in_range(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        IsolatedDecoder(**arguments)


def test_an_engine_that_isolates_finds_the_same_faces(
    astronaut: np.ndarray, compact: FaceEngine
) -> None:
    import cv2

    engine = FaceEngine(threads=1, isolate_decoding=True)
    data = cv2.imencode(".png", astronaut)[1].tobytes()
    assert np.allclose(engine.largest_face(data).box, compact.largest_face(data).box, atol=0.01)
    with pytest.raises(UnreadableImage):
        engine.detect(data[:-100])
    vectors = list(engine.embed_many([data, b"nothing", data]))
    assert isinstance(vectors[1], UnreadableImage)
    assert np.array_equal(vectors[0], vectors[2])
