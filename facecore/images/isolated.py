"""Decode in a separate process, so that a crashing decoder does not end this process."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore import errors
from facecore.errors import FacecoreError, InvalidParameter, UnreadableImage
from facecore.images.decode import checked_heif_size, decode_still
from facecore.images.formats import Still
from facecore.images.limits import DEFAULT_LIMITS, Limits
from facecore.images.picture import Picture

__all__ = ["IsolatedDecoder"]

_HEADER = 8  # bytes that hold the length of the JSON text that follows
_SHARED = 8 * 2**20  # memory shared with each process; larger data go through the socket
_KEPT = 16 * 2**20  # free memory that a process keeps for the next picture
_MEMORY_ASIDE = 128 * 2**20  # for the allocator and the libraries, beyond the pixels
_MOST_SECONDS = 86_400  # timers overflow at larger numbers
_PATIENCE = 3.0  # wall time limit / processor time limit; a sleeping decoder uses no processor time
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from facecore.images import isolated; isolated._serve(*map(int, sys.argv[2:]))"
)
_RAISED = ("UnreadableImage", "ImageTooLarge")  # errors that a child may report


class IsolatedDecoder:
    """Decodes pictures in separate processes with limited memory and time.

    Replaces `facecore.images.decode.decode_still`.  A process starts on demand and decodes one
    picture after the other.  A process that dies or hangs is replaced, and its picture raises
    `UnreadableImage`.  Thread-safe: each process decodes one picture at a time, further pictures
    wait.  A fork of this process starts new decoding processes.

    On Linux, files and pixels pass through memory that both processes map.  A child that a hostile
    picture has taken over can only return wrong pixels through this memory.  It cannot resize the
    memory.  The shape comes from the header that this process has parsed (for HEIC and AVIF, from
    the child, within the limits), and pixels are copied before use.  The child is no sandbox: it
    has the rights of this process.

    Parameters
    ----------
    processes : int, default 2
        Maximum number of processes; each may use ``limits.max_memory`` for decoding.
    limits : Limits, optional
        ``max_memory`` bounds the memory of each process, in addition to its libraries.
    seconds : float, default 10
        Maximum processor time per picture, up to a day; the wall time limit is three times as long.

    Raises
    ------
    InvalidParameter
        A number is out of range, or the system does not support these limits (Windows).
    """

    def __init__(
        self, processes: int = 2, limits: Limits = DEFAULT_LIMITS, seconds: float = 10.0
    ) -> None:
        if os.name != "posix":
            raise InvalidParameter(
                "this system cannot limit the memory of a process",
                "leave isolate_decoding=False, or use Linux or macOS",
            )
        if not isinstance(processes, int) or processes < 1:
            raise InvalidParameter(f"processes={processes!r} must be a positive integer")
        if not isinstance(seconds, int | float | np.number) or not 0 < seconds <= _MOST_SECONDS:
            raise InvalidParameter(f"seconds={seconds!r} must be above 0, up to {_MOST_SECONDS:,}")
        self._processes, self._memory, self._seconds = processes, limits.max_memory, seconds
        self._forget()
        _decoders.add(self)

    def __call__(self, still: Still, reduction: int) -> NDArray[np.uint8]:
        """Decode as `decode_still` does, in another process.

        Raises
        ------
        UnreadableImage
            The pixels are damaged, or decoding them killed the process or took too long.
        ImageTooLarge
            Decoding needs more memory than the header indicated.
        FacecoreError
            The process cannot be started.
        """
        with self._free, self._borrowed() as child:
            child.send(still, reduction)
            return child.receive(still, reduction)

    def heif_size(self, data: bytes) -> tuple[int, int]:
        """Return the upright width and height of a HEIC or AVIF; a C library reads its container.

        Raises
        ------
        UnreadableImage
            The file is damaged, or reading it killed the process or took too long.
        FacecoreError
            The process cannot be started.
        """
        with self._free, self._borrowed() as child:
            return child.heif_size(data)

    def decode_together(self, pictures: Sequence[Picture], scales: Sequence[float]) -> None:
        """Decode the first pictures at the same time, one in each free process.

        The remaining pictures are decoded when their pixels are needed.  This call never waits for
        a process: two calls that each hold one process and wait for another would deadlock.

        Parameters
        ----------
        pictures : sequence of Picture
            Each keeps its pixels, or the error to raise when the pixels are needed.
        scales : sequence of float
            As in `Picture.reduced`, one for each picture.
        """
        free, sent = self._free, []
        with ExitStack() as stack:
            # If no process can be started, the error is raised when the pixels are needed.
            with suppress(FacecoreError):
                for picture, scale in zip(pictures, scales, strict=True):
                    missing = picture.missing(scale)
                    if missing is None:
                        continue
                    if not free.acquire(blocking=False):
                        break
                    stack.callback(free.release)
                    child = stack.enter_context(self._borrowed())
                    child.send(*missing)
                    sent.append((picture, child, *missing))
            for picture, child, still, reduction in sent:
                try:
                    picture.keep(reduction, child.receive(still, reduction))
                except FacecoreError as error:
                    picture.fail(error)

    def close(self) -> None:
        """End the processes; the next picture starts a new one."""
        while (child := self._pop()) is not None:
            child.end()

    @contextmanager
    def _borrowed(self) -> Iterator[_Child]:
        child = self._take()
        try:
            yield child
        finally:
            if child.busy:  # its answer may still arrive, and the next picture must not get it
                child.end()
            else:
                self._idle.append(child)

    def _pop(self) -> _Child | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _take(self) -> _Child:
        while (child := self._pop()) is not None:
            if child.alive():
                return child
            child.end()
        return _Child(self._memory, self._seconds)

    def _forget(self) -> None:
        self._idle: list[_Child] = []  # append and pop are atomic
        self._free = threading.Semaphore(self._processes)


# A fork must not use its parent's decoding processes.
_decoders: weakref.WeakSet[IsolatedDecoder] = weakref.WeakSet()


def _forget_all() -> None:
    for decoder in list(_decoders):
        decoder._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


class _Child:
    """A decoding process and its socket."""

    def __init__(self, memory: int, seconds: float) -> None:
        import fcntl  # not on Windows

        self.busy = False  # with a picture whose answer has not arrived
        self._seconds = seconds
        try:
            self._socket, theirs = socket.socketpair()
        except OSError as error:  # the limit on open files
            raise _cannot_start(str(error)) from error
        file, self._shared = _share()
        own = [theirs.fileno()] if file is None else [theirs.fileno(), file]
        passed: list[int] = []
        # One thread per process: each thread's stack and heap count towards the memory limit.
        alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # By default, glibc returns the pixels' pages after each picture.  Faulting them in again
        # takes as long as a third of the decoding.
        kept = {"MALLOC_MMAP_THRESHOLD_": f"{_KEPT // 2}", "MALLOC_TRIM_THRESHOLD_": f"{_KEPT}"}
        try:
            # Popen replaces 0 to 2 in the child; these numbers are free if the caller closed them.
            passed += [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3) for number in own]
            numbers = [memory, -int(-seconds // 1), *passed]
            self._process = subprocess.Popen(
                # -P and an empty PYTHONPATH keep the first imports out of the working directory,
                # which may hold files of strangers.
                [sys.executable, "-P", "-B", "-W", "ignore", "-c", _CODE, json.dumps(sys.path)]
                + [str(number) for number in numbers],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=passed,
                env={**os.environ, **alone, **kept, "MALLOC_ARENA_MAX": "1", "PYTHONPATH": ""},
                # Ctrl-C goes to the parent, which ends the child.  No new session: Linux
                # gives each session an equal share of the processors.
                process_group=0,
            )
        except (OSError, ValueError, TypeError) as error:  # TypeError: no interpreter, odd path
            self._socket.close()
            raise _cannot_start(str(error)) from error
        finally:
            theirs.close()
            for number in [*passed, *own[1:]]:
                os.close(number)
        self._end = weakref.finalize(self, _end, self._process, self._socket, os.getpid())
        try:
            self._receive(time.monotonic() + 60)  # importing from a slow disk
        except (OSError, ValueError) as error:
            self.end()
            raise _cannot_start("it ended before it was ready") from error

    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._end()

    def send(self, still: Still, reduction: int) -> None:
        names = [name for name in Still.__dataclass_fields__ if name != "data"]
        request = {name: getattr(still, name) for name in names} | {"reduction": reduction}
        self._request(request, still.data)

    def heif_size(self, data: bytes) -> tuple[int, int]:
        self._request({"reduction": 0}, data)
        with self._losses():
            answer = self._answer(time.monotonic() + _PATIENCE * self._seconds)
            width, height = answer.get("width"), answer.get("height")
            if type(width) is not int or type(height) is not int or min(width, height) < 1:
                raise ValueError("no size")
            self.busy = False
            return width, height

    def receive(self, still: Still, reduction: int) -> NDArray[np.uint8]:
        until = time.monotonic() + _PATIENCE * self._seconds
        with self._losses():
            self._answer(until)
            height, width = (-(-side // reduction) for side in still.upright_size)
            pixels = np.empty((height, width, 3), np.uint8)
            if place := _part(self._shared, pixels.nbytes):
                pixels.reshape(-1)[:] = np.frombuffer(place, np.uint8)
            else:
                _receive_into(self._socket, pixels.reshape(-1).data, until)
            self.busy = False
            return pixels

    def _request(self, request: dict[str, Any], data: bytes) -> None:
        self.busy = True
        self._socket.settimeout(_PATIENCE * self._seconds)
        with self._losses():
            size = len(data)
            if place := _part(self._shared, size):
                place[:] = data
            _send(self._socket, request | {"size": size}, b"" if place else data)

    def _answer(self, until: float) -> dict[str, Any]:
        """Return the child's answer, or raise its error."""
        answer = self._receive(until)
        if answer.get("error"):
            self.busy = False
            kind = answer["error"] if answer["error"] in _RAISED else "UnreadableImage"
            raise getattr(errors, kind)(_text(answer, "message"), _text(answer, "hint"))
        return answer

    @contextmanager
    def _losses(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RecursionError) as error:  # closed, timeout, invalid answer
            raise UnreadableImage(f"the picture {self._fate(error)}") from error

    def _receive(self, until: float) -> dict[str, Any]:
        length = bytearray(_HEADER)
        _receive_into(self._socket, memoryview(length), until)
        text = bytearray(min(int.from_bytes(length), 2**16))
        _receive_into(self._socket, memoryview(text), until)
        answer = json.loads(text)
        if not isinstance(answer, dict):
            raise ValueError("no JSON object")
        return answer

    def _fate(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"was not decoded within {_PATIENCE * self._seconds:g} seconds"
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "made the decoding process send an invalid answer"
        if status == -signal.SIGXCPU:
            return f"was not decoded within {self._seconds:g} seconds of processor time"
        names = {-one: one.name for one in signal.Signals}
        return f"ended the decoding process ({names.get(status, f'exit status {status}')})"


def _cannot_start(reason: str) -> FacecoreError:
    return FacecoreError(
        f"no decoding process can be started: {reason}",
        "use FaceEngine(isolate_decoding=False) to decode in this process",
    )


def _end(process: subprocess.Popen[bytes], connection: socket.socket, owner: int) -> None:
    connection.close()
    if os.getpid() == owner:  # a fork must not end its parent's child
        process.kill()
        process.wait()


def _share() -> tuple[int | None, memoryview]:
    """Return a file in memory and its mapping; None and no bytes if the system has none."""
    file = None
    try:
        import fcntl

        file = os.memfd_create("facecore", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(file, _SHARED)
        # If a child could shrink the file, reading beyond its end would end this process (SIGBUS).
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
        return file, memoryview(mmap.mmap(file, _SHARED))
    except (AttributeError, OSError):
        if file is not None:
            os.close(file)
        return None, memoryview(b"")


def _part(shared: memoryview, size: int) -> memoryview | None:
    """Return the first `size` bytes of the shared memory, or None if it is smaller."""
    return shared[:size] if size <= len(shared) else None


def _send(connection: socket.socket, head: dict[str, Any], data: bytes | memoryview = b"") -> None:
    text = json.dumps(head).encode()
    connection.sendall(len(text).to_bytes(_HEADER) + text)
    if len(data):
        connection.sendall(data)


def _text(answer: dict[str, Any], name: str) -> str:
    """Return a text of an answer; replace lone surrogates, which cannot be encoded."""
    return str(answer.get(name, "")).encode(errors="replace").decode()


def _receive_into(connection: socket.socket, place: memoryview, until: float | None = None) -> None:
    """Fill `place`; raise TimeoutError after `until`, on the clock of `time.monotonic`."""
    while len(place):
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
        count = connection.recv_into(place)
        if not count:
            raise ConnectionError("the connection was closed")
        place = place[count:]


def _serve(memory: int, seconds: int, descriptor: int, file: int | None = None) -> None:
    """Run the main loop of a decoding process: decode one picture after the other."""
    import resource

    connection = socket.socket(fileno=descriptor)
    shared = memoryview(b"" if file is None else mmap.mmap(file, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _warm_up()
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    most, _ = _lowered(resource.RLIMIT_AS, _address_space() + memory + _MEMORY_ASIDE)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    _send(connection, {"ready": True})
    while True:
        length = bytearray(_HEADER)
        try:
            _receive_into(connection, memoryview(length))
        except ConnectionError:  # the parent ended or closed the socket
            return
        text = bytearray(int.from_bytes(length))
        _receive_into(connection, memoryview(text))
        request = json.loads(text)
        size = request.pop("size")
        if place := _part(shared, size):
            data = bytes(place)  # a copy, because the pixels overwrite `place`
        else:
            received = bytearray(size)
            _receive_into(connection, memoryview(received))
            data = bytes(received)
            del received
        reduction = request.pop("reduction")
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CPU, _lowered(resource.RLIMIT_CPU, soft))
        pixels: NDArray[np.uint8] | None = None
        try:
            if not reduction:
                width, height = checked_heif_size(data)
                _send(connection, {"width": width, "height": height})
                continue
            pixels = decode_still(Still(data=data, **request), reduction)
            if place := _part(shared, pixels.nbytes):
                place[:] = pixels.reshape(-1).data
            _send(connection, {}, b"" if place else pixels.reshape(-1).data)
        except FacecoreError as error:
            answer = {"error": error.code, "message": error.message, "hint": error.hint}
            _send(connection, answer)
        del data, pixels


def _warm_up() -> None:
    """Import the decoders before memory and files are limited."""
    import cv2

    cv2.setNumThreads(1)
    for name in ("Bmp", "Jpeg2K", "Tiff"):
        import_module(f"PIL.{name}ImagePlugin")


def _lowered(kind: int, soft: int) -> tuple[int, int]:
    """Return a soft limit that the hard limit allows, and the hard limit."""
    import resource

    _, hard = resource.getrlimit(kind)
    return min(soft, sys.maxsize if hard == resource.RLIM_INFINITY else hard), hard


def _address_space() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):  # not Linux: estimate
        return 2**31
