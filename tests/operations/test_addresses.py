"""Addresses: those refused before any request, and downloads from a hostile server."""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpcore
import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from facecore import AddressRefused, DownloadFailed, ImageTooLarge
from facecore.operations import addresses, download
from facecore.operations.addresses import Address, is_public, parse
from facecore.operations.download import fetch

LIMIT = 1 << 20
BODY = bytes(range(256)) * 40


class Hostile(BaseHTTPRequestHandler):
    """Answers by path; most answers stall or mislead a client."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Host"]))
        with contextlib.suppress(OSError):  # the client hung up, as it should
            getattr(self, "say_" + self.path.split("?")[0].strip("/").replace("-", "_"))()

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, *headers: tuple[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def redirect(self, location: str) -> None:
        self.answer(302, ("Location", location), ("Content-Length", "0"))

    def say_good(self) -> None:
        self.answer(200, ("Content-Length", str(len(BODY))), body=BODY)

    def say_chunked(self) -> None:
        self.answer(200, ("Transfer-Encoding", "chunked"), body=b"3\r\nabc\r\n0\r\n\r\n")

    def say_endless(self) -> None:
        self.answer(200)
        while True:
            self.wfile.write(bytes(1 << 16))

    def say_says_small(self) -> None:
        self.answer(200, ("Content-Length", "10"), body=bytes(LIMIT * 2))

    def say_says_large(self) -> None:
        self.answer(200, ("Content-Length", str(len(BODY) + 1)), body=BODY)

    def say_exactly(self) -> None:
        self.answer(200, body=bytes(LIMIT))

    def say_one_over(self) -> None:
        self.answer(200, body=bytes(LIMIT + 1))

    def say_gzip(self) -> None:
        bomb = gzip.compress(bytes(1 << 24))
        self.answer(
            200, ("Content-Encoding", "gzip"), ("Content-Length", str(len(bomb))), body=bomb
        )

    def say_stall(self) -> None:
        time.sleep(3)

    def say_drip(self) -> None:
        self.answer(200, ("Content-Length", "1000"))
        self.drip(b"x")

    def say_drip_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        self.drip(b"x")

    def say_endless_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            self.wfile.write(b"X-Filler: " + bytes(b"x" * 1000) + b"\r\n")

    def say_continue_for_ever(self) -> None:
        while True:
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    def drip(self, drop: bytes) -> None:
        for _ in range(60):
            self.wfile.write(drop)
            time.sleep(0.05)

    def say_garbage(self) -> None:
        self.wfile.write(b"220 mail.test ESMTP\r\n")
        self.close_connection = True

    def say_not_found(self) -> None:
        self.answer(404, ("Content-Length", "0"))

    def say_no_location(self) -> None:
        self.answer(302, ("Content-Length", "0"))

    def say_to_good(self) -> None:
        self.redirect("/good?x=%20y")

    def say_count(self) -> None:
        left = int(self.path.partition("?")[2])
        self.redirect(f"/count?{left - 1}" if left > 1 else "/good")

    def say_to_loop(self) -> None:
        self.redirect("/to-loop")

    def say_to_file(self) -> None:
        self.redirect("file:///etc/passwd")

    def say_to_credentials(self) -> None:
        self.redirect(f"http://user:secret@{self.headers['Host']}/good")

    def say_to_brackets(self) -> None:
        self.redirect("http://[::1")

    def say_to_private(self) -> None:
        self.redirect("http://10.0.0.1/good")

    def say_to_loopback(self) -> None:
        self.redirect(f"http://127.0.0.1:{self.server.server_port}/good")  # type: ignore[attr-defined]


@contextlib.contextmanager
def serving(wrap: Callable[[socket.socket], socket.socket] = lambda sock: sock) -> Iterator[int]:
    Hostile.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *args: None  # type: ignore[method-assign,assignment]
    server.socket = wrap(server.socket)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as number:
        yield number


def get(port: int, path: str, timeout: float = 5.0) -> bytes:
    return fetch(
        f"http://127.0.0.1:{port}/{path}", limit=LIMIT, timeout=timeout, allow_private=True
    )


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Replace the name service by a table: name -> answers."""
    table: dict[str, list[str]] = {}
    monkeypatch.setattr(addresses, "_lookup", lambda host, port, deadline: table.get(host, [host]))
    return table


def test_bytes_come_as_they_are(port: int) -> None:
    assert get(port, "good") == BODY
    assert get(port, "chunked") == b"abc"


def test_redirects_are_followed(port: int) -> None:
    assert get(port, "to-good") == BODY
    assert Hostile.seen[-1] == ("/good?x=%20y", f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "path",
    ["not-found", "garbage", "no-location", "says-large", "gzip", "endless-headers"],
)
def test_answers_that_are_no_download(port: int, path: str) -> None:
    with pytest.raises(DownloadFailed):
        get(port, path)


def test_three_redirects_and_no_more(port: int) -> None:
    assert get(port, "count?3") == BODY
    for path in ("count?4", "to-loop"):
        with pytest.raises(DownloadFailed, match="more than 3 redirects"):
            get(port, path)


@pytest.mark.parametrize("path", ["stall", "drip", "drip-headers", "continue-for-ever"])
def test_the_deadline_is_over_all(port: int, path: str) -> None:
    # The server would go on for 3 seconds and then succeed, or go on for ever.
    with pytest.raises(DownloadFailed, match=r"took more than 0\.3"):
        get(port, path, timeout=0.3)


def test_refused_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening, so no other process can take it
        with pytest.raises(DownloadFailed):
            get(unused.getsockname()[1], "good")


def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **rest: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadFailed, match="unknown"):
        fetch("http://no-such-host.invalid/", limit=LIMIT)


def test_a_name_service_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up, answered = threading.Event(), threading.Event()

    def stall(*args: object, **rest: object) -> list[object]:
        given_up.wait(10)
        answered.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", stall)
    with pytest.raises(DownloadFailed, match=r"took more than 0\.1"):
        fetch("http://slow.test/", limit=LIMIT, timeout=0.1)
    assert not answered.is_set()
    given_up.set()


def test_the_limit_counts_bytes_that_came(port: int) -> None:
    assert len(get(port, "exactly")) == LIMIT
    assert get(port, "says-small") == bytes(10)
    for path in ("one-over", "endless"):
        with pytest.raises(ImageTooLarge):
            get(port, path)


@pytest.mark.parametrize("path", ["to-file", "to-credentials", "to-brackets"])
def test_redirects_are_parsed_like_addresses(port: int, path: str) -> None:
    with pytest.raises(AddressRefused):
        get(port, path)


@pytest.mark.parametrize("path", ["to-private", "to-loopback"])
def test_redirects_are_checked_like_addresses(
    port: int, path: str, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # "public.test" stands for a public machine; only its answer passes the check.
    names["public.test"] = ["127.0.0.1"]
    asked: list[str] = []
    resolve = addresses.resolve

    def lenient(host: str, *args: object, allow_private: bool) -> list[str]:
        asked.append(host)
        return resolve(host, *args, allow_private=host == "public.test")  # type: ignore[arg-type]

    monkeypatch.setattr(addresses, "resolve", lenient)
    before = len(Hostile.seen)
    with pytest.raises(AddressRefused, match="public internet"):
        fetch(f"http://public.test:{port}/{path}", limit=LIMIT)
    assert asked == ["public.test", "10.0.0.1" if path == "to-private" else "127.0.0.1"]
    assert Hostile.seen[before:] == [(f"/{path}", f"public.test:{port}")]


def test_a_connection_goes_to_the_answer_that_was_checked(
    sources: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: a second answer of the name service would be another machine."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    monkeypatch.setattr(addresses, "_lookup", lambda *args: next(answers))
    connected: list[str] = []

    def connect(self: object, host: str, *args: object) -> httpcore.NetworkStream:
        connected.append(host)
        return httpcore.MockStream([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    assert fetch("http://rebinding.test/", limit=LIMIT) == b"ok"
    assert connected == ["93.184.216.34"]
    with pytest.raises(AddressRefused):
        fetch("http://rebinding.test/", limit=LIMIT)


def test_one_private_answer_refuses_the_name(
    names: dict[str, list[str]], sources: dict[str, str]
) -> None:
    names["both.test"] = ["93.184.216.34", "192.168.1.1"]
    with pytest.raises(AddressRefused):
        fetch("http://both.test/", limit=LIMIT)


def test_the_next_answer_is_tried(port: int, names: dict[str, list[str]]) -> None:
    names["two.test"] = ["::1", "127.0.0.1"]  # the server listens at the second only
    assert fetch(f"http://two.test:{port}/good", limit=LIMIT, allow_private=True) == BODY


def test_no_proxy_of_the_environment(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(port, "good") == BODY


def test_certificates_are_checked_by_the_name_and_not_by_the_address(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names["good.test"] = names["evil.test"] = ["127.0.0.1"]
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("good.test").configure_cert(server_side)
    asked: list[str | None] = []
    server_side.sni_callback = lambda sock, name, context: asked.append(name)
    with serving(lambda sock: server_side.wrap_socket(sock, server_side=True)) as port:
        url = f"https://good.test:{port}/good"
        with pytest.raises(DownloadFailed):  # an authority that this machine does not know
            fetch(url, limit=LIMIT, allow_private=True)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        monkeypatch.setattr(download, "_tls", lambda: context)
        assert fetch(url, limit=LIMIT, allow_private=True) == BODY
        assert asked == ["good.test", "good.test"]
        with pytest.raises(DownloadFailed):
            fetch(url.replace("good.test", "evil.test"), limit=LIMIT, allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:93.184.216.34]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b:1::1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001::1]/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[ff02::1]/",
        "http://[::]/",
        "http://0.0.0.0/",
        "http://10.1.2.3/",
        "http://172.31.255.255/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/latest/meta-data/",
        "http://168.63.129.16/machine",
        "http://[2606:4700::5efe:7f00:1]/",
        "http://[2606:4700::200:5efe:a00:1]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://①②⑦.⓪.⓪.①/",  # compatibility characters that IDNA folds to 127.0.0.1
    ],
)
def test_machines_off_the_internet_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    with pytest.raises(AddressRefused):
        fetch(url, limit=LIMIT)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Replace the routing table: target -> source address on this machine."""
    table: dict[str, str] = {}

    def source(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        return ipaddress.ip_address(table[ip]) if ip in table else None

    monkeypatch.setattr(addresses, "_source", source)
    monkeypatch.setattr(addresses, "_can_bind", lambda ip: False)
    return table


@pytest.mark.parametrize(
    ("ip", "source", "is_near"),
    [
        ("93.184.216.34", "93.184.216.34", True),  # this machine's own public address
        ("93.184.216.34", "93.184.216.35", False),
        ("93.184.216.34", "192.168.0.2", False),
        ("2606:4700::1", "2606:4700::1", True),
        ("2606:4700::1", "2606:4700::ffff:2", True),  # a neighbour
        ("2606:4700::1", "2606:4700:0:1::1", False),
        ("2606:4700::1", "", False),  # no route
    ],
)
def test_this_machine_and_its_neighbours_are_refused(
    ip: str,
    source: str,
    is_near: bool,
    names: dict[str, list[str]],
    sources: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connect(self: object, host: str, *args: object) -> httpcore.NetworkStream:
        assert not is_near
        return httpcore.MockStream([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    names["public.test"] = [ip]
    if source:
        sources[ip] = source
    if is_near:
        with pytest.raises(AddressRefused):
            fetch("http://public.test/", limit=LIMIT)
    else:
        assert fetch("http://public.test/", limit=LIMIT) == b"ok"


@pytest.mark.parametrize(
    ("source", "bound", "is_near"),
    [
        ("93.184.216.34", {"93.184.216.35"}, True),  # a second address of this machine
        ("93.184.216.34", {"93.184.216.35", "192.0.2.1"}, False),  # Linux binds any address
        ("93.184.216.35", {"93.184.216.35", "192.0.2.1"}, True),
    ],
)
def test_every_address_of_this_machine_is_refused(
    source: str,
    bound: set[str],
    is_near: bool,
    sources: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources["93.184.216.35"] = source
    monkeypatch.setattr(addresses, "_can_bind", bound.__contains__)
    assert addresses._is_near("93.184.216.35") == is_near


def test_the_system_knows_this_machine() -> None:
    assert str(addresses._source("127.0.0.1")) == "127.0.0.1"
    assert addresses._can_bind("127.0.0.1")


@pytest.mark.parametrize(
    "answer", ["", "public.test", "fe80::1%eth0", "1.2.3", "::g", "0x7f000001"]
)
def test_odd_answers_of_a_name_service_are_refused(
    answer: str, names: dict[str, list[str]], sources: dict[str, str]
) -> None:
    names["odd.test"] = [answer]
    with pytest.raises(AddressRefused):
        fetch("http://odd.test/", limit=LIMIT)


def test_a_name_that_the_system_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **rest: object) -> list[object]:
        raise UnicodeError("label too long")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(DownloadFailed, match="unknown"):
        fetch("http://odd.test/", limit=LIMIT)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "portrait.jpg",
        "/etc/passwd",
        "ftp://example.com/a",
        "file:///etc/passwd",
        "data:image/png;base64,aaaa",
        "http:example.com",
        "http://",
        "http:///a",
        "http://?a",
        "http://:80/",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://@example.com/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://exa mple.com/",
        "http://example.com/\ud800",
        "http://example.com/a\r\nHost: b",
        "http://example.com\\@evil.test/",
        "http://example.com/a\\b",
        "http://[fe80::1%25eth0]/",
        "http://[::1",
        "http://[::1]evil.test/",
        "http://evil.test[::1]/",
        "http://[v1.x]/",
        "http://2130706433/",
        "http://127.1/",
        "http://0x7f.0.0.1/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.0.0.0x1/",
        "http://1.2.3.4.5/",
        "http://a..b/",
        "http://" + "a" * 64 + ".test/",
        "http://" + "a." * 130 + "test/",
        "http://exa%6dple.com/",
        "http://example.com/" + "a" * 9000,
    ],
)
def test_forms_that_are_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        parse(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.COM", Address("http", "example.com", 80, "/")),
        ("http://example.com.:8080?a=b", Address("http", "example.com", 8080, "/?a=b")),
        (
            "https://example.com/a%20b?c=%2B&d#e",
            Address("https", "example.com", 443, "/a%20b?c=%2B&d"),
        ),
        ("http://bücher.test/ü?ü", Address("http", "xn--bcher-kva.test", 80, "/%C3%BC?%C3%BC")),
        ("http://[2606:4700::6810:85e5]:81/", Address("http", "2606:4700::6810:85e5", 81, "/")),
        ("http://my_bucket.test/", Address("http", "my_bucket.test", 80, "/")),
    ],
)
def test_forms_that_are_taken(url: str, expected: Address) -> None:
    assert parse(url) == expected


def test_the_host_header() -> None:
    assert parse("http://a.test:80/").authority == "a.test"
    assert parse("http://a.test:81/").authority == "a.test:81"
    assert parse("https://[2606::1]:444/").authority == "[2606::1]:444"


@given(st.ip_addresses(v=4))
@example(ipaddress.IPv4Address("168.0.0.1"))
def test_public_is_never_more_than_what_the_standard_library_calls_global(
    address: ipaddress.IPv4Address,
) -> None:
    special = address.is_private or address.is_multicast or address.is_reserved
    if is_public(str(address)):
        assert address.is_global
        assert not special


@given(st.ip_addresses(v=6))
def test_public_ipv6_embeds_nothing(address: ipaddress.IPv6Address) -> None:
    if is_public(str(address)):
        assert address.is_global
        assert not address.is_multicast
        assert (address.ipv4_mapped, address.sixtofour, address.teredo) == (None, None, None)


pieces = st.sampled_from(
    [
        "http",
        "https",
        "://",
        "//",
        ":",
        "@",
        "[",
        "]",
        "%",
        "/",
        "?",
        "#",
        ".",
        "\\",
        "\t",
        "\x00",
        "::1",
        "80",
        "0",
        "65536",
        "127.0.0.1",
        "0x7f",
        "ü",
        "。",
        "xn--",
    ]
)


@given(st.lists(pieces, max_size=12).map("".join) | st.text(max_size=40).map("http://".__add__))
def test_an_address_is_refused_or_means_one_thing(url: str) -> None:
    try:
        address = parse(url)
    except AddressRefused:
        return
    text = str(address)
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert parse(text) == address
