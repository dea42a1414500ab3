"""Run the real server in a thread, on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from facecore.server.app import Application, ServerLimits
from facecore.server.keys import Key
from facecore.server.router import Service
from facecore.server.uvicorn_server import Server, bind

DEFAULT = ServerLimits()


@dataclass
class Answered:
    status: int
    body: dict[str, Any]


@dataclass
class Echo:
    """A service that records its calls, and waits while a test holds its gate."""

    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    groups: list[frozenset[str] | None] = field(default_factory=list)
    problem: Exception | None = None

    def knows(self, name: str) -> bool:
        return name != "Unknown"

    def check(self) -> None:
        if self.problem is not None:
            raise self.problem

    def __post_init__(self) -> None:
        self.gate.set()

    def call(
        self, name: str, params: Mapping[str, Any], /, *, groups: frozenset[str] | None = None
    ) -> Answered:
        self.calls.append((name, dict(params)))
        self.groups.append(groups)
        self.gate.wait(10)
        if name == "Fail":
            raise RuntimeError("user-17")
        if name == "NotANumber":
            return Answered(200, {"Score": float("nan")})
        if name == "Large":
            return Answered(200, {"Code": "Success", "Message": "x" * 65536})
        if name == "Throttle":
            return Answered(403, {"Code": "Throttling.Api", "RequestId": "R"})
        return Answered(200, {"Code": "Success", "RequestId": "R", "Message": "success"})


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Running:
    port: int
    server: Server
    thread: threading.Thread

    def stop(self) -> None:
        self.server.should_exit = True

    def send(
        self,
        form: Mapping[str, str] | bytes = b"",
        query: str = "",
        *,
        method: str = "POST",
        path: str = "/",
        **headers: str,
    ) -> Reply:
        """Send one request without a signature."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = form if isinstance(form, bytes) else urlencode(form).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body and "content-type" not in sent:
            sent["content-type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, path + (f"?{query}" if query else ""), body, sent)
            return reply(connection.getresponse())
        finally:
            connection.close()

    def raw(self, data: bytes, *, seconds: float = 5) -> bytes:
        """Send `data`; return the answer until the server hangs up or `seconds` pass."""
        with socket.create_connection(("127.0.0.1", self.port), seconds) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(data)
            answer = b""
            with contextlib.suppress(OSError):
                while chunk := sock.recv(1 << 16):
                    answer += chunk
            return answer


def reply(response: http.client.HTTPResponse) -> Reply:
    data = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    body: Any = data
    if headers["content-type"] == "application/json":
        body = json.loads(data)
    elif headers["content-type"] == "application/xml":
        body = {field.tag: field.text for field in ElementTree.fromstring(data)}
    return Reply(response.status, headers, body)


@contextlib.contextmanager
def running(
    service: Service,
    keys: Mapping[str, str] | Mapping[str, Key] | None = None,
    limits: ServerLimits = DEFAULT,
    **options: Any,
) -> Iterator[Running]:
    sock = bind("127.0.0.1", 0)
    server = Server(Application(service, keys, limits, **options))
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    running = Running(sock.getsockname()[1], server, thread)
    try:
        yield running
    finally:
        running.stop()
        thread.join()
