"""The server around an operation: what reaches it, and what every other request is told."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from server.serving import Echo, Reply, Running, reply, running

from facecore import InvalidParameter
from facecore.server import uvicorn_server as runs
from facecore.server.app import ServerLimits
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
    refused(server.send({"Action": "One"}, x_acs_action="Two"), "InvalidParameter")
    refused(server.send({"Action": "One", "A": "1"}, "A=2"), "InvalidParameter")
    refused(server.send(b"Action=One&A=%ff"), "InvalidParameter")
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
    ],
)
def test_without_signatures_pages_and_other_names_are_refused(
    server: Running, echo: Echo, header: dict[str, str]
) -> None:
    refused(server.send({"Action": "One"}, **header), "Forbidden.CrossOrigin")
    for host in ("localhost", f"localhost:{server.port}", "[::1]:80", "[::1]", "127.0.0.2"):
        assert server.send({"Action": "One"}, host=host).status == 200


def test_codes_of_the_service_pass_through(server: Running, echo: Echo) -> None:
    answer = server.send({"Action": "Unknown"})
    assert (answer.status, answer.body["Code"]) == (404, "InvalidAction.NotFound")
    assert "x-acs-retry-after" not in answer.headers
    answer = server.send({"Action": "Throttle"})
    assert (answer.status, answer.headers["x-acs-retry-after"]) == (403, "1000")


def test_an_unexpected_failure_is_an_answer_and_tells_nothing(
    server: Running, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    refused(server.send({"Action": "Fail"}), "InternalError")
    refused(server.send({"Action": "NotANumber"}), "InternalError")
    assert "RuntimeError at" in caplog.text
    assert "user-17" not in caplog.text


def test_health(server: Running) -> None:
    answer = server.send(method="GET", path="/health")
    assert (answer.status, answer.body) == (200, {"status": "ok"})


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
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ü HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    ],
)
def test_no_http_is_answered_in_json(server: Running, data: bytes) -> None:
    head, _, body = server.raw(data, seconds=0.5).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert json.loads(body)["Code"] in REFUSALS


def test_bodies_of_other_forms(server: Running, echo: Echo) -> None:
    chunks = b"6\r\nAction\r\n4\r\n=One\r\n0\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    assert b"Success" in server.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)


def test_a_client_that_hangs_up(
    server: Running, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "facecore.server.access")
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nAction")
    while "ClientDisconnected" not in caplog.text:
        time.sleep(0.005)
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
    head = b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    endless = b"".join(b"3e8\r\n" + bytes(1000) + b"\r\n" for _ in range(100))
    assert b"RequestTooLarge" in server.raw(head + endless)
    assert len(echo.calls) == 1


def test_bodies_that_do_not_come(small: tuple[Running, Echo]) -> None:
    server, echo = small
    head = b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
    answer = server.raw(head + b"A=")
    assert b"RequestTimeout" in answer
    assert b"connection: close" in answer
    assert echo.calls == []


def test_limits_that_let_nothing_pass() -> None:
    for wrong in ({"body_bytes": 0}, {"body_seconds": float("nan")}, {"workers": -1}):
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
    while server.server._application._pending < 2:
        time.sleep(0.005)
    answer = server.send({"Action": "One"})
    refused(answer, "Throttling.Api")
    assert int(answer.headers["x-acs-retry-after"]) > 0
    assert server.send(method="GET", path="/health").status == 200
    echo.gate.set()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in replies] == [200, 200]
    assert server.send({"Action": "One"}).status == 200  # and free again


def test_bodies_that_wait_are_counted_together(small: tuple[Running, Echo]) -> None:
    server, echo = small
    echo.gate.clear()
    first = threading.Thread(target=server.send, args=(b"Action=One&A=" + b"x" * 900,))
    first.start()
    while not echo.calls:
        time.sleep(0.005)
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
        while not echo.calls:
            time.sleep(0.005)
        server.stop()
        while not server.server._application._stopping:
            time.sleep(0.005)
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


def test_a_request_while_stopping(server: Running, echo: Echo) -> None:
    application = server.server._application
    application.stop()
    try:
        refused(server.send({"Action": "One"}), "ServiceUnavailable")
        refused(server.send(method="GET", path="/health"), "ServiceUnavailable")
    finally:
        application._stopping = False


def test_connections_that_say_nothing_are_closed(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "HEAD_SECONDS", 0.1)
    assert server.raw(b"") == b""
    assert b"RequestTimeout" in server.raw(b"POST / HTTP/1.1\r\nHost:")
    whole = b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert server.raw(whole).endswith(b"}")  # answered, then idle, then closed
    assert b"RequestTimeout" in server.raw(whole + b"POST ")


def test_a_second_head_has_its_own_time(
    server: Running, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "HEAD_SECONDS", 0.05)
    echo.gate.clear()
    threading.Timer(0.3, echo.gate.set).start()  # the first request outlasts the first head's time
    whole = b"POST /?Action=One HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    answer = server.raw(whole + b"POST ")
    assert b"Success" in answer
    assert b"RequestTimeout" in answer


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


def test_too_many_connections(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "CONNECTIONS", 2)
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    try:
        answer = server.raw(b"")
        assert b"Throttling.Api" in answer
        assert b"x-acs-retry-after: 1000" in answer
    finally:
        for sock in idle:
            sock.close()


def test_the_log(server: Running, echo: Echo, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "facecore.server.access")
    server.send({"Action": "FaceCompare", "MerchantUserId": "user-17", "SourceFacePicture": "aGk"})
    server.send({"Action": "Unknown", "A": "user-17"})
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


def test_every_code_of_the_server_is_on_its_page() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d{3}) \| (`.+?) \|", page, re.MULTILINE)
    named = {code: int(status) for status, codes in rows for code in re.findall(r"`(.+?)`", codes)}
    assert named == {code: status for code, (status, _) in REFUSALS.items()}
