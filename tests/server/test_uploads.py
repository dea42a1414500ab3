"""Files that are uploaded first: permissions, limits, and multipart forms."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from server.serving import Echo, Reply, Running
from waiting import until

from facecore.server import app, router, uploads
from facecore.server.refusals import REFUSALS, Refusal
from facecore.server.uploads import Uploads, permission, read_upload


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def multipart(parts: dict[str, bytes], boundary: str = "b") -> tuple[str, bytes]:
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, value in parts.items()
    )
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def test_a_file_is_taken_once_by_who_may() -> None:
    files = Uploads()
    key = files.allow("door-1")
    assert files.take(key, "door-1") is None  # nothing has come yet
    files.put(key, b"picture")
    assert files.take(f"http://http://127.0.0.1/{key}", "door-2") is None
    assert files.take(f"http://http://127.0.0.1/{key}", "door-1") == b"picture"
    assert files.take(key, "door-1") is None


def test_a_permission_is_for_one_file_and_a_minute() -> None:
    clock = Clock()
    files = Uploads(clock)
    with pytest.raises(Refusal, match="No upload"):
        files.put("0" * 32, b"x")
    key = files.allow("")
    files.put(key, b"x")
    with pytest.raises(Refusal, match="No upload"):
        files.put(key, b"y")
    late = files.allow("")
    clock.now = 61
    assert files.take(key, "") is None
    with pytest.raises(Refusal, match="No upload"):
        files.put(late, b"x")


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    files = Uploads(clock)
    monkeypatch.setattr(uploads, "OWN_BYTES", 10)
    monkeypatch.setattr(uploads, "BYTES", 15)
    keys = [files.allow("a") for _ in range(uploads.OWN_WAITING)]
    with pytest.raises(Refusal, match="Throttling"):
        files.allow("a")
    others = [files.allow("b") for _ in range(2)]  # one key never takes another's places
    files.put(keys[0], b"1234567")
    with pytest.raises(Refusal, match="Throttling"):
        files.put(keys[1], b"1234567")
    files.put(others[0], b"1234567")
    with pytest.raises(Refusal, match="Throttling"):
        files.put(others[1], b"12")
    clock.now = 61
    files.put(files.allow("a"), b"1234567")


def test_empty_files_take_no_places() -> None:
    files = Uploads()
    for _ in range(uploads.OWN_WAITING + 1):
        key = files.allow("a")
        with pytest.raises(Refusal, match="empty"):
            files.put(key, b"")
    with pytest.raises(Refusal, match="No upload"):
        files.put(key, b"x")


def test_files_are_expected_only_after_a_permission() -> None:
    clock = Clock()
    files = Uploads(clock)
    assert not files.expects()
    key = files.allow("")
    assert files.expects()
    files.put(key, b"x")
    assert not files.expects()
    files.allow("")
    clock.now = 61
    assert not files.expects()


@pytest.mark.parametrize(
    ("host", "scheme", "url"),
    [
        ("127.0.0.1:8080", "http", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080", "http", "http://127.0.0.1:8080"),
        ("faces.example.com", "https", "faces.example.com"),
    ],
)
def test_bucket_and_endpoint_make_the_host(host: str, scheme: str, url: str) -> None:
    answer = permission("k", host, scheme)
    assert f"{answer['Bucket']}.{answer['Endpoint']}" == url


@pytest.mark.parametrize("host", ["localhost:8080", "[::1]:8080", "[::ffff:1.2.3.4]", ""])
def test_hosts_that_cannot_be_cut(host: str) -> None:
    with pytest.raises(Refusal, match="a dot"):
        permission("k", host, "http")


@given(st.text("0123456789abcdef", min_size=1), st.binary(max_size=200))
def test_forms_are_read_back(key: str, data: bytes) -> None:
    assert read_upload(*multipart({"key": key.encode(), "policy": b"", "file": data})) == (
        key,
        data,
    )


@pytest.mark.parametrize(
    ("options", "boundary"),
    [
        ("; boundary=b", "b"),
        (";boundary=b ;charset=utf-8", "b"),
        ('; charset=utf-8; Boundary="b c"', "b c"),
        ("; boundary=(b/c:d=e)", "(b/c:d=e)"),
        (";boundary=*****", "*****"),
        ('; boundary = "a&b{c}@~"', "a&b{c}@~"),
        ("; boundary=" + "b" * 70, "b" * 70),
    ],
)
def test_boundaries_with_and_without_quotes(options: str, boundary: str) -> None:
    _, body = multipart({"key": b"k", "file": b"\0"}, boundary)
    assert read_upload(f"multipart/form-data{options}", body) == ("k", b"\0")


options = st.sampled_from(
    [
        "",
        ";",
        "; boundary",
        "; boundary=",
        "; boundary=b",
        '; boundary="b',
        "; boundary=" + "b" * 99,
    ]
)
pieces = [
    *(b"--b", b"--", b"\r\n", b"\r\n\r\n", b"x", b": ", b"\0", b"Content-Disposition: form-data"),
    *(b'; name="key"', b'; name="file"', b"; name*=utf-8''%ff; filename=\"\xff\""),
]


@example("; boundary*=a; boundary*0=b", b"")  # RFC 2231
@example(f"; boundary*{'9' * 5000}=b", b"")
@given(
    options | st.text(st.characters(max_codepoint=255), max_size=10),
    st.lists(st.sampled_from(pieces), max_size=20).map(b"".join),
)
def test_broken_forms_are_refused(options: str, body: bytes) -> None:
    with contextlib.suppress(Refusal):
        read_upload(f"multipart/form-data{options}", body)


def test_too_many_parts() -> None:
    with pytest.raises(Refusal, match="more than"):
        read_upload(*multipart({str(number): b"" for number in range(17)}))


def test_over_http(server: Running, echo: Echo) -> None:
    kind, early = multipart({"key": b"k", "file": b"x"})
    assert server.send(early, content_type=kind).body["Code"] == "InvalidParameter"
    assert (
        server.send(method="GET", x_acs_action="AuthorizeFileUpload").body["Code"]
        == "UnsupportedHTTPMethod"  # any web page can send this GET with an image tag
    )
    allowed = server.send(
        x_acs_action="AuthorizeFileUpload",
        x_acs_version="2019-12-19",
        host=f"127.0.0.1:{server.port}",
    )
    assert allowed.status == 200
    kind, body = multipart({"key": allowed.body["ObjectKey"].encode(), "file": b"\0picture"})
    uploaded = server.send(body, content_type=kind)
    assert (uploaded.status, uploaded.headers["content-type"]) == (201, "application/xml")
    address = f"http://http://127.0.0.1:{server.port}/{allowed.body['ObjectKey']}"
    form = {"Action": "AddFaceRecord", "FacePictureFile": address}
    server.send(form)
    server.send(form)
    files = [params["FacePictureFile"] for _, params in echo.calls]
    assert files == [b"\0picture", address]  # an address without a waiting file stays as it is
    assert server.send(body, content_type=kind).body["Code"] == "InvalidParameter"


def test_refusals_are_xml_whoever_refuses(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor's clients read the code of a refused upload from XML."""

    def code_of(refused: Reply) -> str:
        assert refused.headers["content-type"] == "application/xml"
        assert refused.body.keys() == {"Code", "Message", "RequestId", "HostId"}
        assert all(refused.body.values())
        return str(refused.body["Code"])

    kind, body = multipart({"key": b"k", "file": b"x" * 2**24})
    assert code_of(server.send(body, content_type=kind)) == "RequestTooLarge"
    kind, body = multipart({"key": b"k", "file": b"x"})
    assert code_of(server.send(body, content_type=kind.upper())) == "InvalidParameter"
    allowed = server.send(x_acs_action="AuthorizeFileUpload", host=f"127.0.0.1:{server.port}")
    kind, body = multipart({"key": allowed.body["ObjectKey"].encode(), "file": b""})
    monkeypatch.setitem(REFUSALS, "Throttling.Api", (403, "busy <&> full"))
    with monkeypatch.context() as patch:
        patch.setattr(server.server._application, "_most", 0)
        busy = server.send(body, content_type=kind)
        assert code_of(busy) == "Throttling.Api"
        assert busy.body["Message"] == "busy <&> full"
        assert busy.headers["x-acs-retry-after"]
        assert server.send({"Action": "FaceCompare"}).body["Code"] == "Throttling.Api"  # JSON
    with monkeypatch.context() as patch:
        patch.setattr(router, "read_upload", lambda *_: 1 / 0)
        assert code_of(server.send(body, content_type=kind)) == "InternalError"
    assert code_of(server.send(body, content_type=kind)) == "InvalidParameter"


def test_a_file_that_nobody_names_is_let_go(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is dropped even if no other upload comes."""
    monkeypatch.setattr(uploads, "SECONDS", 5.0)
    monkeypatch.setattr(app, "UPLOAD_SECONDS", 5.0)
    allowed = server.send(x_acs_action="AuthorizeFileUpload", host=f"127.0.0.1:{server.port}")
    kind, body = multipart({"key": allowed.body["ObjectKey"].encode(), "file": b"picture"})
    assert server.send(body, content_type=kind).status == 201
    until(lambda: not server.server._application._dispatcher.uploads._places)
