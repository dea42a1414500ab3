"""Signatures, with the vendor's own packages as the oracle."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from alibabacloud_tea_openapi.utils import Utils
from hypothesis import given
from hypothesis import strategies as st

from facecore.server.keys import Key
from facecore.server.refusals import REFUSALS, Refusal
from facecore.server.signatures import Head, Nonces, RateLimit, Verifier

KEY, SECRET = "door-1", "s3cret-s3cret-s3cret"
NOW = 1_769_860_800.0  # 2026-01-31T12:00:00Z
STAMP = "2026-01-31T12:00:00Z"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text("abcXYZ.09-_~", min_size=1, max_size=8)


@dataclass(frozen=True)
class Received(Head):
    """A head and its body."""

    body: bytes = b""


def verifier(now: float = NOW, **options: Any) -> Verifier:
    return Verifier({KEY: SECRET}, clock=lambda: now, **options)


def verify(request: Received, by: Verifier | None = None) -> str:
    by = by or verifier()
    return by.accept(by.admit(request), request, request.body).id


def acs3(
    query: dict[str, str] | None = None,
    body: bytes = b"a=b",
    *,
    key: str = KEY,
    secret: str = SECRET,
    algorithm: str = "ACS3-HMAC-SHA256",
    **changed: str,
) -> Received:
    """Return a request signed by the vendor's package; `changed` sets headers before signing."""
    headers = {
        "host": "http://127.0.0.1:8080",
        "x-acs-action": "FaceCompare",
        "x-acs-version": "2022-08-09",
        "x-acs-date": STAMP,
        "x-acs-signature-nonce": "n1",
        "x-acs-content-sha256": hashlib.sha256(body).hexdigest(),
        "accept": "application/json",
        "content-type": "application/x-www-form-urlencoded",
        "user-agent": "AlibabaCloud (linux; x86_64) Python/3.11 Core/0.4",
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    request = SimpleNamespace(method="POST", pathname="/", query=query or {}, headers=headers)
    hashed = headers["x-acs-content-sha256"]
    authorization = Utils.get_authorization(request, "ACS3-HMAC-SHA256", hashed, key, secret)
    headers["authorization"] = authorization.replace("ACS3-HMAC-SHA256", algorithm)
    return Received(
        "POST",
        list((query or {}).items()),
        headers={name: [value] for name, value in headers.items()},
        body=body,
    )


def sha1(form: dict[str, str] | None = None, *, secret: str = SECRET, **changed: str) -> Received:
    query = {
        "Action": "FaceCompare",
        "Format": "json",
        "Version": "2022-08-09",
        "Timestamp": STAMP,
        "SignatureNonce": "n1",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0",
        "AccessKeyId": KEY,
    } | changed
    form = form or {}
    query["Signature"] = Utils.get_rpcsignature(query | form, "POST", secret)
    return Received("POST", list(query.items()), body=urlencode(form).encode())


def refused(request: Received, by: Verifier | None = None) -> str:
    with pytest.raises(Refusal) as caught:
        verify(request, by)
    assert caught.value.code in REFUSALS
    return caught.value.code


@given(st.dictionaries(names, texts, max_size=4), st.binary(max_size=40))
def test_acs3_of_the_vendors_package(query: dict[str, str], body: bytes) -> None:
    assert verify(acs3(query, body), verifier()) == KEY


@given(st.dictionaries(names, texts, max_size=4))
def test_hmac_sha1_of_the_vendors_package(form: dict[str, str]) -> None:
    assert verify(sha1(form), verifier()) == KEY


def test_the_old_package_signs_the_same() -> None:
    composer = pytest.importorskip("aliyunsdkcore.auth.composer.rpc_signature_composer")
    from facecore.server.forms import read_form

    form = {"Picture": "a+b/c=", "Text": "ü ~*"}
    url, _ = composer.get_signed_url(
        {"Action": "CompareFaces", "Version": "2019-03-07"}, KEY, SECRET, "JSON", "POST", form
    )
    query = read_form(url.partition("?")[2].encode())
    request = Received("POST", query, body=urlencode(form).encode())
    assert verify(request, Verifier({KEY: SECRET})) == KEY


@pytest.mark.parametrize("make", [acs3, sha1])
def test_another_secret(make: Callable[..., Received]) -> None:
    assert refused(make(secret=SECRET + "x")) == "SignatureDoesNotMatch"


def test_an_unknown_key() -> None:
    assert refused(acs3(key="door-2")) == "InvalidAccessKeyId.NotFound"
    assert refused(sha1(AccessKeyId="door-2")) == "InvalidAccessKeyId.NotFound"


def test_nothing_signed() -> None:
    assert refused(Received("POST", [])) == "IncompleteSignature"
    assert refused(Received("GET", [("Signature", "")])) == "IncompleteSignature"


@given(st.data())
def test_whatever_is_changed_after_signing_is_found(data: st.DataObject) -> None:
    request = acs3({"a": "b"}, b"c=d")
    changed = data.draw(
        st.sampled_from(
            [
                replace(request, method="GET"),
                replace(request, query=[("a", "c")]),
                replace(request, query=[("a", "b"), ("d", "")]),
                replace(request, query=[]),
                replace(request, body=b"c=e"),
                replace(request, body=b""),
                *(
                    replace(request, headers=request.headers | {name: values})
                    for name in request.headers
                    for values in ([], ["changed"], [*request.headers[name], "twice"])
                ),
                replace(request, headers=request.headers | {"x-acs-more": ["unsigned"]}),
            ]
        )
    )
    assert refused(changed) in {
        "SignatureDoesNotMatch",
        "IncompleteSignature",
    }


@pytest.mark.parametrize("name", ["Action", "Version", "Timestamp", "SignatureNonce", "Format"])
def test_whatever_is_changed_after_signing_is_found_in_a_query(name: str) -> None:
    request = sha1({"a": "b"})
    query = [(key, "x" if key == name else value) for key, value in request.query]
    code = "InvalidTimeStamp.Format" if name == "Timestamp" else "SignatureDoesNotMatch"
    assert refused(replace(request, query=query)) == code
    assert refused(replace(request, body=b"a=c")) == "SignatureDoesNotMatch"
    assert refused(replace(request, method="GET")) == "SignatureDoesNotMatch"
    without = [pair for pair in request.query if pair[0] != name]
    assert refused(replace(request, query=without)) in (
        "IncompleteSignature",
        "SignatureDoesNotMatch",
    )


@pytest.mark.parametrize(
    "header",
    ["host", "x-acs-action", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"],
)
def test_headers_that_must_be_signed(header: str) -> None:
    request = acs3()
    signed = request.header("authorization").replace(f"{header};", "")
    headers = request.headers | {"authorization": [signed]}
    assert refused(replace(request, headers=headers)) == "IncompleteSignature"


def test_the_body_is_not_the_one_that_was_hashed() -> None:
    with pytest.raises(Refusal, match="does not match the body"):
        verify(replace(acs3(), body=b"a=c"), verifier())


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("x-acs-date", "InvalidTimeStamp.Format"),
        ("x-acs-signature-nonce", "IncompleteSignature"),
    ],
)
def test_headers_that_must_be_there(header: str, code: str) -> None:
    assert refused(acs3(**{header: ""})) == code


@pytest.mark.parametrize(
    "name", ["Action", "Version", "Timestamp", "SignatureNonce", "AccessKeyId"]
)
def test_parameters_that_must_be_there(name: str) -> None:
    assert refused(sha1(**{name: ""})) == "IncompleteSignature"


def test_other_methods() -> None:
    assert refused(acs3(algorithm="ACS3-RSA-SHA256")) == "InvalidSignatureMethod"
    assert refused(sha1(SignatureMethod="HMAC-SHA256")) == "InvalidSignatureMethod"
    assert refused(sha1(SignatureVersion="2.0")) == "InvalidSignatureMethod"
    assert refused(acs3(algorithm="Bearer token")) == "IncompleteSignature"


@pytest.mark.parametrize("make", [acs3, sha1])
def test_the_clock(make: Callable[..., Received]) -> None:
    for seconds in (-900, 900):
        verify(make(), verifier(NOW + seconds))
    for seconds in (-901, 901):
        assert refused(make(), verifier(NOW + seconds)) == "InvalidTimeStamp.Expired"


@pytest.mark.parametrize("stamp", ["now", "2026-01-31 12:00:00", "0000-00-00T00:00:00Z", "٢" * 20])
def test_time_stamps_of_other_forms(stamp: str) -> None:
    assert refused(acs3(x_acs_date=stamp)) == "InvalidTimeStamp.Format"
    assert refused(sha1(Timestamp=stamp)) == "InvalidTimeStamp.Format"


@pytest.mark.parametrize("make", [acs3, sha1])
def test_a_request_is_answered_once(make: Callable[..., Received]) -> None:
    by = verifier()
    verify(make(), by)
    assert refused(make(), by) == "SignatureNonceUsed"


def test_a_nonce_too_long() -> None:
    assert refused(acs3(x_acs_signature_nonce="n" * 129)) == "IncompleteSignature"


def test_a_refused_request_uses_no_nonce_up() -> None:
    by = verifier()
    assert refused(acs3(secret="another-secret-here"), by) == "SignatureDoesNotMatch"
    verify(acs3(), by)


class Clock:
    """A machine's two clocks: time passes on both, and one of them can be set."""

    def __init__(self) -> None:
        self.now = NOW
        self.tick = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.tick += seconds


def test_nonces_are_kept_while_their_stamp_is_good_and_no_longer() -> None:
    clock = Clock()
    clock.now = 0
    nonces = Nonces(3, lambda: clock.tick)
    for second in (0, 60, 120):
        clock.now = clock.tick = second
        nonces.use("n", second, second)
    with pytest.raises(Refusal, match="Throttling"):
        nonces.use("m", 180, 180)
    clock.now = clock.tick = 900
    for second in (0, 60, 120):  # the last moment of the first stamp's window
        with pytest.raises(Refusal, match="NonceUsed"):
            nonces.use("n", second, 900)
    clock.now = clock.tick = 961
    nonces.use("m", 961, 961)  # the first minute is over: there is room for one
    with pytest.raises(Refusal, match="Throttling"):
        nonces.use("m", 1021, 1020)


@given(
    st.lists(
        st.tuples(st.sampled_from(["sleep", "set", "send"]), st.integers(-7200, 7200)), max_size=12
    )
)
def test_no_setting_of_the_clock_makes_an_answered_request_good_again(
    steps: list[tuple[str, int]],
) -> None:
    clock = Clock()
    by = Verifier({KEY: SECRET}, clock=lambda: clock.now, ticks=lambda: clock.tick)
    verify(acs3(), by)
    for number, (step, seconds) in enumerate(steps):
        if step == "sleep":
            clock.sleep(abs(seconds))
        elif step == "set":
            clock.now += seconds
        else:  # other requests make the server drop nonces
            moment = datetime.datetime.fromtimestamp(clock.now, datetime.UTC)
            other = acs3(
                x_acs_date=moment.strftime("%Y-%m-%dT%H:%M:%SZ"), x_acs_signature_nonce=str(number)
            )
            with contextlib.suppress(Refusal):
                verify(other, by)
        assert refused(acs3(), by) in ("SignatureNonceUsed", "InvalidTimeStamp.Expired")
    clock.now = NOW
    assert refused(acs3(), by) in ("SignatureNonceUsed", "InvalidTimeStamp.Expired")


def test_a_clock_that_goes_wrong_for_a_while_locks_nobody_out() -> None:
    clock = Clock()
    by = Verifier({KEY: SECRET}, clock=lambda: clock.now, ticks=lambda: clock.tick)
    verify(acs3(), by)
    clock.now += 3600
    verify(acs3(x_acs_date="2026-01-31T13:00:00Z", x_acs_signature_nonce="n2"), by)
    clock.sleep(10)
    clock.now -= 3600
    verify(acs3(x_acs_date="2026-01-31T12:00:10Z", x_acs_signature_nonce="n3"), by)


def test_one_key_does_not_use_up_the_nonces_of_another() -> None:
    by = Verifier({KEY: SECRET, "door-2": SECRET}, clock=lambda: NOW, nonces=2)
    for number in range(2):
        verify(acs3(x_acs_signature_nonce=str(number)), by)
    assert refused(acs3(x_acs_signature_nonce="more"), by) == "Throttling.Api"
    assert verify(acs3(key="door-2"), by) == "door-2"


def test_rates() -> None:
    clock = Clock()
    rate = RateLimit(2, lambda: clock.tick)
    for _ in range(2):
        rate.take()
    with pytest.raises(Refusal, match="Throttling"):
        rate.take()
    clock.sleep(0.5)
    rate.take()
    with pytest.raises(Refusal, match="Throttling"):
        rate.take()
    slow = RateLimit(0.1, lambda: clock.tick)
    slow.take()
    with pytest.raises(Refusal, match="Throttling"):
        slow.take()
    clock.sleep(10)
    slow.take()


def test_a_key_with_a_rate_and_a_last_day() -> None:
    clock = Clock()
    keys = {KEY: Key(KEY, SECRET, until=datetime.date(2026, 1, 31), rate=1)}
    by = Verifier(keys, clock=lambda: clock.now, ticks=lambda: clock.tick)
    verify(acs3(), by)
    assert refused(acs3(x_acs_signature_nonce="n2"), by) == "Throttling.Api"
    clock.sleep(1)
    verify(acs3(x_acs_signature_nonce="n2"), by)  # what was refused can be sent again
    clock.sleep(12 * 3600)
    for make in (acs3, sha1):
        assert refused(make(), by) == "InvalidAccessKeyId.Inactive"


def test_the_older_signature_can_be_refused() -> None:
    by = verifier(acs3_only=True)
    verify(acs3(), by)
    assert refused(sha1(), by) == "InvalidSignatureMethod"
    assert refused(Received("POST", []), by) == "IncompleteSignature"


def test_all_that_a_head_shows_is_refused_before_the_body() -> None:
    by = verifier()
    for request, code in (
        (Received("POST", []), "IncompleteSignature"),
        (acs3(key="door-2"), "InvalidAccessKeyId.NotFound"),
        (acs3(secret=SECRET + "x"), "SignatureDoesNotMatch"),
        (acs3(x_acs_date="2026-01-31T13:00:00Z"), "InvalidTimeStamp.Expired"),
        (acs3(x_acs_content_sha256="x"), "IncompleteSignature"),
        (sha1(AccessKeyId="door-2"), "InvalidAccessKeyId.NotFound"),
        (sha1(Timestamp="2026-01-31T13:00:00Z"), "InvalidTimeStamp.Expired"),
        (sha1(SignatureNonce="n" * 129), "IncompleteSignature"),
    ):
        with pytest.raises(Refusal) as caught:
            by.admit(request)
        assert caught.value.code == code
    verify(acs3(), by)
    with pytest.raises(Refusal, match="NonceUsed"):
        by.admit(acs3())


def test_names_that_are_there_twice_are_not_signed() -> None:
    """Two parsers could choose different values."""
    request = sha1({"a": "b"})
    assert refused(replace(request, body=b"a=b&a=b")) == "InvalidParameter"
    assert refused(replace(request, body=b"Action=FaceCompare")) == "InvalidParameter"
    twice = [*request.query, ("Action", "FaceCompare")]
    assert refused(replace(request, query=twice)) == "InvalidParameter"


def test_one_of_many_threads_wins() -> None:
    by, request = verifier(), acs3()
    won: list[str] = []

    def send() -> None:
        with contextlib.suppress(Refusal):
            won.append(verify(request, by))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [KEY]
