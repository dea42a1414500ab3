"""Random malformed requests against the running server: JSON or XML, a documented code, no growth.

FACECORE_FUZZ=10000 sends that many requests; the default is a few hundred.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from server.fuzz import Fuzz
from server.serving import Echo, running

from facecore.operations import CODES
from facecore.server.refusals import REFUSALS

COUNT = int(os.environ.get("FACECORE_FUZZ", "300"))
STATUS = {code: {CODES[code].status} for code in CODES}
for name, (number, _) in REFUSALS.items():
    STATUS.setdefault(name, set()).add(number)


def exchange(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        with contextlib.suppress(OSError):  # the server may hang up before it has read all
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := sock.recv(1 << 16):
                answer += chunk
        return answer


def check(answer: bytes, sent: bytes) -> str:
    """Check that an answer is as documented, and return its code."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    assert lines[0].startswith("http/1.1 "), (sent[:300], answer[:300])
    status = int(lines[0].split()[1])
    headers = dict(line.split(": ", 1) for line in lines[1:])
    rest = rest[: int(headers["content-length"])]
    if headers["content-type"] == "application/xml":  # an upload
        body = {field.tag: field.text for field in ElementTree.fromstring(rest)}
        if status == 201:
            return "201"
    else:
        assert headers["content-type"] == "application/json", (sent[:300], answer[:300])
        body = json.loads(rest)
    if "ObjectKey" in body or body == {"status": "ok"}:
        assert status == 200
        return "200"
    code = body["Code"]
    if status == 200:
        assert code in ("Success", "1"), body
    else:
        assert status in STATUS[code], body
        assert body["RequestId"]
        assert body["HostId"]
        assert body["Message"]
    assert status != 500, (sent[:2000], body)
    return str(code)


def resident(process: int) -> int:
    """Return the bytes of a process's anonymous memory."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("no RssAnon")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Yield the port and process id of ``facecore serve``."""
    log = (tmp_path / "log").open("w+")
    command = [sys.executable, "-m", "facecore.cli", "serve", "--no-auth", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--threads", "1", "--gallery", str(tmp_path / "gallery")],
        stdout=subprocess.DEVNULL,
        stderr=log,
        env=os.environ | {"MALLOC_ARENA_MAX": "2"},
    )
    try:
        line = ""
        while not line.endswith("\n"):
            assert process.poll() is None
            log.seek(0)
            line = log.readline()
        yield int(json.loads(line)["message"].rpartition(":")[2]), process.pid
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_without_signatures_into_the_operations(process: tuple[int, int]) -> None:
    port, pid = process
    fuzz = Fuzz(1, port)
    codes: dict[str, int] = {}
    memory = 0
    for number in range(COUNT):
        if number == 2 * COUNT // 3:  # until then the models grow to the largest pictures
            memory = resident(pid)
        data = fuzz.request()
        code = check(exchange(port, data), data)
        codes[code] = codes.get(code, 0) + 1
    grown = (resident(pid) - memory) / 2**20
    print(f"{COUNT} requests, {memory / 2**20:.0f} MiB, {grown:+.1f} MiB; {codes}")
    assert len(codes) > 10
    assert grown < 96  # glibc keeps up to 32 MiB of free pages in each of two heaps


def test_with_signatures_nothing_reaches_an_operation() -> None:
    echo = Echo()
    with running(echo, {"door-1": "s3cret-s3cret-s3cret"}) as server:
        fuzz = Fuzz(2, server.port)
        for _ in range(COUNT // 3):
            data = fuzz.request()
            check(exchange(server.port, data), data)
    assert echo.calls == []
