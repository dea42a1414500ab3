"""Signatures, with the vendor's own packages as the oracle."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from alibabacloud_tea_openapi.utils import Utils
from hypothesis import given
from hypothesis import strategies as st

from facecore.server.refusals import REFUSALS, Refusal
from facecore.server.signatures import Nonces, Received, Verifier

KEY, SECRET = "door-1", "s3cret-s3cret-s3cret"
NOW = 1_769_860_800.0  # 2026-01-31T12:00:00Z
STAMP = "2026-01-31T12:00:00Z"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text("abcXYZ.09-_~", min_size=1, max_size=8)


def verifier(now: float = NOW, **options: Any) -> Verifier:
    return Verifier({KEY: SECRET}, clock=lambda: now, **options)


def acs3(
    query: dict[str, str] | None = None,
    body: bytes = b"a=b",
    *,
    key: str = KEY,
    secret: str = SECRET,
    algorithm: str = "ACS3-HMAC-SHA256",
    **changed: str,
) -> Received:
    """A request as the vendor's package signs it; `changed` are headers, before signing."""
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
    return Received("POST", list(query.items()), list(form.items()))


def refused(request: Received, by: Verifier | None = None) -> str:
    with pytest.raises(Refusal) as caught:
        (by or verifier()).verify(request)
    assert caught.value.code in REFUSALS
    return caught.value.code


@given(st.dictionaries(names, texts, max_size=4), st.binary(max_size=40))
def test_acs3_of_the_vendors_package(query: dict[str, str], body: bytes) -> None:
    assert verifier().verify(acs3(query, body)) == KEY


@given(st.dictionaries(names, texts, max_size=4))
def test_hmac_sha1_of_the_vendors_package(form: dict[str, str]) -> None:
    assert verifier().verify(sha1(form)) == KEY


def test_the_old_package_signs_the_same() -> None:
    composer = pytest.importorskip("aliyunsdkcore.auth.composer.rpc_signature_composer")
    from facecore.server.forms import read_form

    form = {"Picture": "a+b/c=", "Text": "ü ~*"}
    url, _ = composer.get_signed_url(
        {"Action": "CompareFaces", "Version": "2019-03-07"}, KEY, SECRET, "JSON", "POST", form
    )
    request = Received("POST", read_form(url.partition("?")[2].encode()), list(form.items()))
    assert Verifier({KEY: SECRET}).verify(request) == KEY


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
    assert refused(replace(request, query=query)) == "SignatureDoesNotMatch"
    assert refused(replace(request, form=[("a", "c")])) == "SignatureDoesNotMatch"
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
    with pytest.raises(Refusal, match="is not the body's"):
        verifier().verify(replace(acs3(), body=b"a=c"))


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
        verifier(NOW + seconds).verify(make())
    for seconds in (-901, 901):
        assert refused(make(), verifier(NOW + seconds)) == "InvalidTimeStamp.Expired"


@pytest.mark.parametrize("stamp", ["now", "2026-01-31 12:00:00", "0000-00-00T00:00:00Z", "٢" * 20])
def test_time_stamps_of_other_forms(stamp: str) -> None:
    assert refused(acs3(x_acs_date=stamp)) == "InvalidTimeStamp.Format"
    assert refused(sha1(Timestamp=stamp)) == "InvalidTimeStamp.Format"


@pytest.mark.parametrize("make", [acs3, sha1])
def test_a_request_is_answered_once(make: Callable[..., Received]) -> None:
    by = verifier()
    by.verify(make())
    assert refused(make(), by) == "SignatureNonceUsed"


def test_a_nonce_too_long() -> None:
    assert refused(acs3(x_acs_signature_nonce="n" * 129)) == "IncompleteSignature"


def test_a_refused_request_uses_no_nonce_up() -> None:
    by = verifier()
    assert refused(acs3(secret="another-secret-here"), by) == "SignatureDoesNotMatch"
    by.verify(acs3())


def test_nonces_are_kept_while_their_stamp_is_good_and_no_longer() -> None:
    nonces = Nonces(3)
    for second in (0, 60, 120):
        nonces.use("n", second, second)
    with pytest.raises(Refusal, match="Throttling"):
        nonces.use("m", 180, 180)
    for second in (0, 60, 120):  # the last moment of the first stamp's window
        with pytest.raises(Refusal, match="NonceUsed"):
            nonces.use("n", second, 900)
    nonces.use("m", 961, 961)  # the first minute is over: there is room for one
    with pytest.raises(Refusal, match="Throttling"):
        nonces.use("m", 1021, 1020)


def test_one_of_many_threads_wins() -> None:
    by, request = verifier(), acs3()
    won: list[str] = []

    def send() -> None:
        with contextlib.suppress(Refusal):
            won.append(by.verify(request))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [KEY]
