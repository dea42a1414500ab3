"""The server around an operation: it passes valid requests on and refuses all others."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import http.client
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import numpy as np
import pytest
from alibabacloud_tea_openapi.utils import Utils
from server.serving import Echo, Reply, Running, reply, running
from waiting import until

from facecore import GalleryNotWritable, InvalidParameter
from facecore.server import access_log, app
from facecore.server import uvicorn_server as runs
from facecore.server.app import ServerLimits
from facecore.server.keys import Key
from facecore.server.refusals import REFUSALS
from facecore.server.uvicorn_server import bind


def refused(answer: Reply, code: str) -> None:
    assert answer.body["Code"] == code
    assert answer.status == REFUSALS[code][0]
    assert sorted(answer.body) == ["Code", "HostId", "Message", "RequestId"]
    assert answer.headers["content-type"] == "application/json"


def test_query_and_form_are_merged(server: Running, echo: Echo) -> None:
    answer = server.send({"B": "x+y z", "C": ""}, "A=1&Action=FaceCompare&Version=2022-08-09")
    assert (answer.status, answer.body["Code"]) == (200, "Success")
    name, params = echo.calls[0]
    assert name == "FaceCompare"
    assert params == {
        "A": "1",
        "B": "x+y z",
        "C": "",
        "Action": "FaceCompare",
        "Version": "2022-08-09",
    }


def test_the_operation_is_in_the_header_the_query_or_the_form(server: Running, echo: Echo) -> None:
    server.send(x_acs_action="One")
    server.send(query="Action=Two")
    server.send({"Action": "Three"})
    server.send({"Action": "Four"}, x_acs_action="Four", x_acs_version="2019-03-07")
    assert [name for name, _ in echo.calls] == ["One", "Two", "Three", "Four"]


def test_the_host_may_be_a_whole_url(server: Running, echo: Echo) -> None:
    assert server.send(x_acs_action="One", host=f"http://127.0.0.1:{server.port}").status == 200


def test_an_unescaped_plus_arrives_as_a_space(server: Running, echo: Echo) -> None:
    server.send(b"Action=One&P=ab+cd")
    assert echo.calls[0][1]["P"] == "ab cd"


def test_a_large_picture_passes(server: Running, echo: Echo) -> None:
    value = base64.b64encode(np.random.default_rng(1).bytes(10 * 2**20)).decode()
    answer = server.send({"Action": "One", "P": value})
    assert answer.status == 200
    assert echo.calls[0][1]["P"] == value


def test_what_is_refused_before_an_operation(server: Running, echo: Echo) -> None:
    refused(server.send(), "MissingParameter")
    refused(server.send({"Action": "Unknown"}), "InvalidAction.NotFound")
    refused(server.send({"Action": "One"}, x_acs_action="Two"), "InvalidParameter")
    refused(server.send({"Action": "One", "A": "1"}, "A=2"), "InvalidParameter")
    refused(server.send(b"Action=One&A=%ff"), "InvalidParameter")
    refused(server.send(b"Action=One&A=%zz"), "InvalidParameter")
    refused(server.send(b"&".join([b"A=1"] * 101)), "InvalidParameter")
    refused(server.send({"Action": "One", "Version": "2017-01-01"}), "NoSuchVersion")
    refused(server.send(b"{}", content_type="application/json"), "UnsupportedMediaType")
    refused(server.send(path="/elsewhere"), "InvalidApi.NotFound")
    refused(server.send(path="//"), "InvalidApi.NotFound")
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"):
        refused(server.send(method=method, query="Action=One"), "UnsupportedHTTPMethod")
    refused(server.send(method="GET", query="Action=FaceCompare"), "UnsupportedHTTPMethod")
    assert echo.calls == []


def test_queries_by_get(server: Running, echo: Echo) -> None:
    assert server.send(method="GET", query="Action=QueryFaceGroup&PageSize=1").status == 200
    assert server.send(method="GET", x_acs_action="QueryFaceRecord").status == 200


@pytest.mark.parametrize(
    "header",
    [
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"host": "evil.test"},
        {"host": "evil.test:8080"},
        {"host": "127.0.0.1.evil.test"},
        {"host": "192.168.0.2"},
        {"host": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none, cross-site"},
    ],
)
def test_without_signatures_pages_and_other_names_are_refused(
    server: Running, echo: Echo, header: dict[str, str]
) -> None:
    refused(server.send({"Action": "One"}, **header), "Forbidden.CrossOrigin")
    for host in (
        "localhost",
        f"LocalHost:{server.port}",
        "localhost.",
        "[::1]:80",
        "[::1]",
        "127.0.0.2",
    ):
        assert server.send({"Action": "One"}, host=host).status == 200


def test_codes_of_the_service_pass_through(server: Running, echo: Echo) -> None:
    answer = server.send({"Action": "Throttle"})
    assert (answer.status, answer.headers["x-acs-retry-after"]) == (403, "1000")


def test_an_unexpected_failure_is_an_answer_and_tells_nothing(
    server: Running, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    refused(server.send({"Action": "Fail"}), "InternalError")
    refused(server.send({"Action": "NotANumber"}), "InternalError")
    assert "RuntimeError at" in caplog.text
    assert "user-17" not in caplog.text


def test_a_page_is_refused_before_its_body_is_read(server: Running, echo: Echo) -> None:
    """The answer comes before the body; the server then waits for the body in vain."""
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: null\r\nContent-Length: 9\r\n"
    assert b"Forbidden.CrossOrigin" in server.raw(head + b"Expect: 100-continue\r\n\r\n")


def test_health(server: Running, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "HEALTH_SECONDS", 0.0)
    answer = server.send(method="GET", path="/health")
    assert (answer.status, answer.body) == (200, {"status": "ok"})
    for problem in (GalleryNotWritable("no room at user-17"), RuntimeError("user-17")):
        monkeypatch.setattr(echo, "problem", problem)
        answer = server.send(method="GET", path="/health")
        assert (answer.status, answer.body) == (503, {"status": type(problem).__name__})
    monkeypatch.setattr(echo, "problem", None)
    assert server.send(method="GET", path="/health").status == 200
    monkeypatch.setattr(app, "HEALTH_SECONDS", 60.0)
    monkeypatch.setattr(echo, "problem", RuntimeError())
    assert server.send(method="GET", path="/health").status == 200  # the last check is still valid


def test_health_of_a_disk_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    echo = Echo()
    monkeypatch.setattr(app, "HEALTH_WAIT", 0.05)
    monkeypatch.setattr(echo, "check", stuck.wait, raising=False)
    with running(echo) as server:
        try:
            for _ in range(2):
                answer = server.send(method="GET", path="/health")
                assert (answer.status, answer.body["status"]) == (503, "GalleryUnavailable")
            assert server.send({"Action": "One"}).status == 200
            looks = [t for t in threading.enumerate() if t.name == "facecore-health"]
            assert looks
            assert all(thread.daemon for thread in looks)  # the process can end
        finally:
            stuck.set()


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),  # a TLS greeting
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",  # a folded header
        b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",  # bare line feeds
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",  # a bare carriage return
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ü HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    ],
)
def test_no_http_is_answered_in_json(server: Running, data: bytes) -> None:
    head, _, body = server.raw(data, seconds=5).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert json.loads(body)["Code"] in REFUSALS


@pytest.mark.parametrize("more", [b"", b"Content-Length: 5\r\n"])
def test_bodies_of_no_stated_length(server: Running, echo: Echo, more: bytes) -> None:
    """The server reads exactly one request from it, and refuses that request."""
    chunks = b"6\r\nAction\r\n4\r\n=One\r\n0\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + more
    answer = server.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert (b"InvalidRequest" if more else b"LengthRequired") in answer
    assert echo.calls == []


def test_a_client_that_hangs_up(
    server: Running, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "facecore.server.access")
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nAction")
    until(lambda: "ClientDisconnected" in caplog.text)
    assert echo.calls == []
    assert server.send({"Action": "One"}).status == 200


def test_two_requests_on_one_connection(server: Running, echo: Echo) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    for _ in range(2):
        connection.request("POST", "/?Action=One")
        assert reply(connection.getresponse()).status == 200
    connection.close()
    one = b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    both = server.raw(one + b"\r\n" + one + b"Connection: close\r\n\r\n")
    assert both.count(b"HTTP/1.1 200") == 2


@pytest.fixture
def small() -> Iterator[tuple[Running, Echo]]:
    echo = Echo()
    limits = ServerLimits(body_bytes=1000, body_seconds=0.3, held_bytes=1500, workers=1, queue=1)
    with running(echo, limits=limits) as server:
        yield server, echo


def test_bodies_over_the_limit(small: tuple[Running, Echo]) -> None:
    server, echo = small
    assert server.send(b"Action=One&A=" + bytes(b"x" * 900)).status == 200
    refused(server.send(b"Action=One&A=" + bytes(b"x" * 1000)), "RequestTooLarge")
    head = b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
    for length in (1001, 10**9, 10**18):
        assert b"RequestTooLarge" in server.raw(head % length + bytes(2000), seconds=1)
    assert len(echo.calls) == 1


def test_bodies_that_do_not_come(small: tuple[Running, Echo]) -> None:
    server, echo = small
    head = b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
    answer = server.raw(head + b"A=")
    assert b"RequestTimeout" in answer
    assert b"connection: close" in answer
    assert echo.calls == []


def test_limits_that_let_nothing_pass() -> None:
    for wrong in (
        {"body_bytes": 0},
        {"body_seconds": float("nan")},
        {"workers": -1},
        {"connections": 0},
        {"write_seconds": -1},
    ):
        with pytest.raises(InvalidParameter, match=next(iter(wrong))):
            ServerLimits(**wrong)  # type: ignore[arg-type]


def test_busy(small: tuple[Running, Echo]) -> None:
    server, echo = small
    echo.gate.clear()
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: replies.append(server.send({"Action": "One"})))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    until(lambda: server.server._application._pending.total() >= 2)
    answer = server.send({"Action": "One"})
    refused(answer, "Throttling.Api")
    assert int(answer.headers["x-acs-retry-after"]) > 0
    assert server.send(method="GET", path="/health").status == 200
    echo.gate.set()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in replies] == [200, 200]
    assert server.send({"Action": "One"}).status == 200  # free again


def test_bodies_that_wait_are_counted_together(small: tuple[Running, Echo]) -> None:
    server, echo = small
    echo.gate.clear()
    first = threading.Thread(target=server.send, args=(b"Action=One&A=" + b"x" * 900,))
    first.start()
    until(lambda: echo.calls)
    refused(server.send(b"Action=One&A=" + b"x" * 900), "Throttling.Api")
    echo.gate.set()
    first.join()
    assert server.send(b"Action=One&A=" + b"x" * 900).status == 200


def test_stopping_finishes_what_is_here_and_takes_nothing_more() -> None:
    echo = Echo()
    with running(echo) as server:
        echo.gate.clear()
        replies: list[Reply] = []
        first = threading.Thread(target=lambda: replies.append(server.send({"Action": "One"})))
        first.start()
        late = socket.create_connection(("127.0.0.1", server.port))
        late.sendall(b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n")
        until(lambda: echo.calls)
        server.stop()
        until(lambda: server.server._application._stopping)
        late.close()
        while True:  # refused or reset, within moments
            try:
                server.send({"Action": "One"})
            except OSError:
                break
        echo.gate.set()
        first.join()
        assert [answer.status for answer in replies] == [200]
        server.thread.join(5)
        assert not server.thread.is_alive()


def test_what_waits_too_long_at_the_stop_is_not_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "STOP_SECONDS", 0.1)
    echo = Echo()
    with running(echo, limits=ServerLimits(workers=1)) as server:
        application = server.server._application
        shutdown = application._threads.shutdown

        def release(**options: bool) -> None:
            shutdown(wait=False, **options)
            echo.gate.set()
            shutdown()

        monkeypatch.setattr(application._threads, "shutdown", release)
        echo.gate.clear()
        replies: list[Reply] = []
        threads = [
            threading.Thread(target=lambda: replies.append(server.send({"Action": "One"})))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        until(lambda: application._pending.total() >= 3)
        server.stop()
        for thread in threads:
            thread.join()
    assert len(echo.calls) == 1
    assert len(replies) == 3
    for answer in replies:
        refused(answer, "ServiceUnavailable")


def test_a_request_while_stopping(server: Running, echo: Echo) -> None:
    application = server.server._application
    application.stop()
    try:
        refused(server.send({"Action": "One"}), "ServiceUnavailable")
        refused(server.send(method="GET", path="/health"), "ServiceUnavailable")
    finally:
        application._stopping = False


WHOLE = b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def test_connections_that_say_nothing_are_closed() -> None:
    with running(Echo(), limits=ServerLimits(head_seconds=0.1)) as server:
        assert server.raw(b"") == b""
        assert b"RequestTimeout" in server.raw(b"POST / HTTP/1.1\r\nHost:")
        assert server.raw(WHOLE).endswith(b"}")  # answered, then idle, then closed
        assert b"RequestTimeout" in server.raw(WHOLE + b"POST ")


def test_a_second_head_has_its_own_time() -> None:
    echo = Echo()
    with running(echo, limits=ServerLimits(head_seconds=0.5)) as server:
        echo.gate.clear()
        threading.Timer(1.0, echo.gate.set).start()  # longer than the first head has
        answer = server.raw(WHOLE + b"POST ")
        assert b"Success" in answer
        assert b"RequestTimeout" in answer


def test_clients_that_never_read_are_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    """The server and the kernel hold little data for them meanwhile."""
    caplog.set_level(logging.INFO, "facecore.server.access")
    echo = Echo()
    limits = ServerLimits(write_seconds=0.3, connection_requests=10**6)
    with running(echo, limits=limits) as server:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            sock.settimeout(20)
            with pytest.raises(ConnectionError):  # not a timeout: the server ends it
                sock.sendall(WHOLE.replace(b"One", b"Large") * 10**6)
        assert len(echo.calls) < 32
        assert server.send({"Action": "One"}).status == 200


def test_a_connection_answers_so_many_requests() -> None:
    with running(Echo(), limits=ServerLimits(connection_requests=3)) as server:
        answer = server.raw(WHOLE * 5)
        assert answer.count(b"HTTP/1.1 200") == 3
        assert answer.count(b"connection: close") == 1


def test_a_client_that_has_said_all_still_gets_its_answer(server: Running, echo: Echo) -> None:
    echo.gate.clear()
    with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
        sock.sendall(b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        threading.Timer(0.2, echo.gate.set).start()
        answer = b""
        while chunk := sock.recv(1 << 16):
            answer += chunk
    assert b"Success" in answer


def connect(server: Running, data: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), 10)
    sock.sendall(data)
    return sock


def until_closed(sock: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(1 << 16):
            answer += chunk
    return answer


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST / HTTP/1.1\r\nHo",  # a slow head
        b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nA",
    ],
)
def test_slow_clients_make_room_for_others(start: bytes) -> None:
    """Close the connection that has kept the server waiting the longest, not the new one."""
    with running(Echo(), limits=ServerLimits(connections=3)) as server, contextlib.ExitStack() as s:
        slow = [s.enter_context(contextlib.closing(connect(server, start))) for _ in range(3)]
        until(lambda: len(server.server.server_state.connections) >= 3)
        assert server.send({"Action": "One"}).status == 200
        assert server.send(method="GET", path="/health").status == 200
        answer = until_closed(slow[0])
        assert b"Throttling.Api" in answer
        assert b"x-acs-retry-after: 1000" in answer


@pytest.mark.parametrize("limit", ["connections", "address_connections"])
def test_a_burst_of_connections(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection of a burst is accepted before any of it is closed."""
    monkeypatch.setattr(runs, "_origin", lambda address: "192.0.2.1")
    limits = ServerLimits(**{limit: 3})  # type: ignore[arg-type]
    with running(Echo(), limits=limits) as server, contextlib.ExitStack() as stack:
        accepting = threading.Event()
        loop = server.server.servers[0].get_loop()
        loop.call_soon_threadsafe(accepting.wait, 10)
        for _ in range(20):
            stack.enter_context(contextlib.closing(connect(server)))
        accepting.set()
        assert server.send(method="GET", path="/health").status == 200
        until(lambda: len(server.server.server_state.connections) <= 3, 5)


def test_clients_that_leave_their_last_answer_unread_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "SEND_BUFFER", 4096)
    last = b"POST /?Action=Large HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    echo = Echo()
    with (
        running(echo, limits=ServerLimits(connections=3)) as server,
        contextlib.ExitStack() as stack,
    ):
        for number in range(6):
            sock = stack.enter_context(contextlib.closing(socket.socket()))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(last)
            until(lambda number=number: len(echo.calls) > number)  # type: ignore[misc]
        until(lambda: len(server.server.server_state.connections) <= 3, 5)


def test_connections_at_work_stay() -> None:
    echo = Echo()
    with running(echo, limits=ServerLimits(connections=1)) as server:
        echo.gate.clear()
        with contextlib.closing(connect(server, WHOLE)) as first:
            until(lambda: echo.calls)
            assert b"Throttling.Api" in server.raw(b"")
            echo.gate.set()
            first.shutdown(socket.SHUT_WR)
            assert b"Success" in until_closed(first)


def test_an_address_has_a_share_of_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_origin", lambda address: "192.0.2.1")
    limits = ServerLimits(address_connections=2)
    with running(Echo(), limits=limits) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(contextlib.closing(connect(server))) for _ in range(3)]
        assert b"Throttling.Api" in until_closed(idle[0])
        assert len(server.server.server_state.connections) <= 2


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("127.0.0.1", ""),
        ("::1", ""),
        ("", ""),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:127.0.0.1", ""),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_who_shares(address: str, origin: str) -> None:
    assert runs._origin(address) == origin


@pytest.mark.skipif(os.name != "posix", reason="POSIX's limits")
def test_as_many_files_as_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, values: raised.append(values))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    with pytest.raises(InvalidParameter, match="open files, and 100 are allowed"):
        runs.reserve_files(50, 0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 4096))
    runs.reserve_files(512, 4)
    assert raised == [(512 + runs.OWN_FILES + 4 * runs.WORKER_FILES, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4096, 4096))
    runs.reserve_files(512, 4)
    assert len(raised) == 1


def test_no_flood_of_lines(
    server: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "facecore.server.access")
    monkeypatch.setattr(access_log, "REFUSALS", 3)
    monkeypatch.setattr(access_log.time, "monotonic", lambda: 5.0)
    for path in ("/elsewhere", "/health", "/elsewhere", "/health", "/health"):
        server.send(method="GET", path=path)
    for _ in range(2):
        server.send({"Action": "One"})
    lines = [json.loads(r.getMessage()) for r in caplog.records if "access" in r.name]
    assert [line["status"] for line in lines] == [404, 200, 404, 200, 200]
    assert [line.get("left_out") for line in lines] == [None, None, None, 2, None]


SECRET = "s3cret-s3cret-s3cret"


def signed(
    server: Running,
    operation: str,
    form: Mapping[str, str] | bytes = b"",
    *,
    key: str = "door-1",
    secret: str = SECRET,
) -> Reply:
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    hashed = hashlib.sha256(body).hexdigest()
    headers = {
        "host": f"127.0.0.1:{server.port}",
        "x-acs-action": operation,
        "x-acs-version": "2019-12-19" if operation == "AuthorizeFileUpload" else "2022-08-09",
        "x-acs-date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "x-acs-signature-nonce": os.urandom(8).hex(),
        "x-acs-content-sha256": hashed,
    }
    request = SimpleNamespace(method="POST", pathname="/", query={}, headers=headers)
    headers["authorization"] = Utils.get_authorization(
        request, "ACS3-HMAC-SHA256", hashed, key, secret
    )
    return server.send(body, **{name.replace("-", "_"): value for name, value in headers.items()})


def test_what_a_key_may_do() -> None:
    echo = Echo()
    keys = {
        "door-1": Key("door-1", SECRET, operations=frozenset({"FaceCompare", "QueryFaceGroup"})),
        "desk": Key("desk", SECRET, groups=frozenset({"staff"})),
        "old": Key("old", SECRET, until=datetime.date(2020, 1, 1)),
        "slow": Key("slow", SECRET, rate=0.001),
    }
    with running(echo, keys) as server:
        assert signed(server, "FaceCompare").status == 200
        assert signed(server, "QueryFaceGroup").status == 200
        for operation in ("DeleteFaceGroup", "AddFaceRecord", "AuthorizeFileUpload"):
            refused(signed(server, operation), "Forbidden.RAMUserAccessDenied")
        refused(signed(server, "CompareFaces"), "Error.NoPermissionAccess")
        refused(signed(server, "Unknown"), "InvalidAction.NotFound")
        assert signed(server, "AddFaceRecord", key="desk").status == 200
        assert signed(server, "AuthorizeFileUpload", key="desk").status == 200
        refused(signed(server, "FaceCompare", key="old"), "InvalidAccessKeyId.Inactive")
        assert signed(server, "FaceCompare", key="slow").status == 200
        refused(signed(server, "FaceCompare", key="slow"), "Throttling.Api")
    assert echo.groups == [None, None, frozenset({"staff"}), None]


def test_one_key_does_not_take_all_places() -> None:
    echo = Echo()
    keys = dict.fromkeys(("door-1", "door-2"), SECRET)
    with running(echo, keys, ServerLimits(workers=1, queue=3)) as server:
        echo.gate.clear()
        replies: list[Reply] = []
        threads = [
            threading.Thread(target=lambda: replies.append(signed(server, "FaceCompare")))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        until(lambda: server.server._application._pending["door-1"] >= 2)
        refused(signed(server, "FaceCompare"), "Throttling.Api")
        other = threading.Thread(
            target=lambda: replies.append(signed(server, "FaceCompare", key="door-2"))
        )
        other.start()
        until(lambda: server.server._application._pending["door-2"] >= 1)
        echo.gate.set()
        for thread in (*threads, other):
            thread.join()
    assert [answer.status for answer in replies] == [200, 200, 200]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"x_acs_action": "FaceCompare"},
        {"authorization": "ACS3-HMAC-SHA256 Credential=door-2,SignedHeaders=host,Signature=00"},
        {"authorization": "ACS3-HMAC-SHA256 Credential=door-1,SignedHeaders=host,Signature=00"},
        {"content_type": "multipart/form-data; boundary=b"},
        {"content_type": "text/plain"},
    ],
)
def test_an_unsigned_body_is_never_held(
    change: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = Echo()
    with running(echo, {"door-1": SECRET}) as server:
        application = server.server._application
        monkeypatch.setattr(application, "_body", lambda *_, **__: pytest.fail("the body was read"))
        answer = server.send(b"%" * 2**20, **change)
        assert answer.status == REFUSALS[answer.body["Code"]][0] < 500
        assert answer.body["Code"] != "InternalError"
    assert echo.calls == []


def test_bodies_that_only_name_a_key_leave_room_for_others() -> None:
    named = (
        "Action=FaceCompare&Version=2022-08-09&AccessKeyId=door-1&Signature=AAAA&SignatureNonce=n"
        "&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0&Timestamp="
        + time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    )
    limits = ServerLimits(held_bytes=2000)
    head = f"POST /?{named} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n".encode()
    with running(Echo(), {"door-1": SECRET}, limits) as server:
        application = server.server._application
        with contextlib.closing(connect(server, head + b"x" * 999)):
            until(lambda: application._unproven >= 999)
            refused(server.send(b"x" * 1000, named), "Throttling.Api")
            assert signed(server, "FaceCompare", b"A=" + b"x" * 900).status == 200
        until(lambda: not (application._unproven or application._held))


def test_a_signed_body_that_was_changed() -> None:
    """The head proves the key; the body is held, hashed and refused without being decoded."""
    echo = Echo()
    with running(echo, {"door-1": SECRET}) as server:
        whole = server.send

        def changed(body: bytes, **headers: str) -> Reply:
            return whole(b"%" * len(body), **headers)

        server.send = changed  # type: ignore[method-assign, assignment]
        refused(signed(server, "FaceCompare", b"A=1"), "SignatureDoesNotMatch")
    assert echo.calls == []


def test_the_log(
    server: Running,
    echo: Echo,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "facecore.server.access")
    server.send({"Action": "FaceCompare", "MerchantUserId": "user-17", "SourceFacePicture": "aGk"})
    monkeypatch.setattr(echo, "knows", lambda name: name != "user-17", raising=False)
    server.send({"Action": "user-17"})
    server.raw(b"user-17\r\n\r\n")
    server.send(method="USER-17")
    server.send(path="/user-17")
    lines = [
        json.loads(record.getMessage()) for record in caplog.records if "access" in record.name
    ]
    assert [line["operation"] for line in lines] == ["FaceCompare", None, None, None, None]
    assert [line["status"] for line in lines] == [200, 404, 400, 405, 404]
    assert lines[0]["code"] == "Success"
    assert lines[0]["bytes"] == len(
        "Action=FaceCompare&MerchantUserId=user-17&SourceFacePicture=aGk"
    )
    assert lines[0]["request_id"] == "R"
    assert lines[0]["ms"] >= 0
    assert "user-17" not in "".join(record.getMessage() for record in caplog.records)


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(InvalidParameter, match="cannot be used"):
        bind("192.0.2.1", 0)
    with pytest.raises(InvalidParameter, match="no address"):
        bind("no-such-host.invalid", 0)
    with pytest.raises(InvalidParameter):
        bind("127.0.0.1", 70_000)
    with bind("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(InvalidParameter, match="cannot be used"):
            bind("127.0.0.1", first.getsockname()[1])


@pytest.mark.skipif(os.name != "posix", reason="Windows has the option itself")
def test_windows_lets_no_second_server_take_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = socket.SO_KEEPALIVE
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", stand_in, raising=False)
    with bind("127.0.0.1", 0) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, stand_in)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


def test_every_code_of_the_server_is_on_its_page() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d{3}) \| (`.+?) \|", page, re.MULTILINE)
    named = {code: int(status) for status, codes in rows for code in re.findall(r"`(.+?)`", codes)}
    assert named == {code: status for code, (status, _) in REFUSALS.items()}
