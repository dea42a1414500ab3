"""Verify the signatures of requests, in the two forms that the vendor's clients write.

``ACS3-HMAC-SHA256`` signs method, path, query, headers and the body's hash; ``HMAC-SHA1``
(signature version 1.0) signs method, query and form.  Both sign a time stamp and a nonce, so that
an intercepted request cannot be replayed.

A request is checked in two steps.  `Verifier.admit` reads only the head and makes every check that
does not need the body; with ``ACS3-HMAC-SHA256`` these include the signature.  `Verifier.accept`
checks the body.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import hashlib
import hmac
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from facecore.server.forms import escape, escape_twice, split_form, unescape
from facecore.server.keys import Key
from facecore.server.refusals import Refusal

__all__ = ["Claim", "Head", "Nonces", "RateLimit", "Verifier"]

WINDOW = 15 * 60  # seconds that a client's clock may differ
NONCES = 1 << 17  # 70 requests per second, over the 30 minutes that a time stamp can be valid
NONCE_LENGTH = 128

_ACS3 = re.compile(
    r"(?P<method>[A-Z0-9-]+)\s+Credential=(?P<key>[^,\s]+),\s*"
    r"SignedHeaders=(?P<names>[a-z0-9;-]+),\s*Signature=(?P<signature>[0-9a-f]+)"
)
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body, before any check.

    Attributes
    ----------
    method : str
    query : sequence of (str, str)
        Decoded names and values, in order.
    headers : mapping of str to sequence of str
        Names in lower case.
    """

    method: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)

    def header(self, name: str) -> str:
        """Return the only value of a header; "" if there is none, or more than one."""
        values = self.headers.get(name, ())
        return values[0].strip() if len(values) == 1 else ""


@dataclass(frozen=True, slots=True)
class Claim:
    """The signature of a head, and the values to verify with the body.

    Attributes
    ----------
    key : Key
    made : int
        Time stamp, in seconds since 1970.
    nonce : str
    body_hash : str
        SHA-256 of the body, signed in the head; "" with ``HMAC-SHA1``.
    signature : bytes
        ``HMAC-SHA1`` signature to verify with the body; empty with ``ACS3-HMAC-SHA256``.
    """

    key: Key
    made: int
    nonce: str
    body_hash: str = ""
    signature: bytes = b""


class Verifier:
    """Check that the holder of a key signed a request.

    Safe to share between threads.

    Parameters
    ----------
    keys : mapping of str to Key or str
        Keys by id; a string is the secret of a key without restrictions.
    acs3_only : bool, default False
        Refuse ``HMAC-SHA1``.
    clock : callable, default time.time
        Seconds since 1970.
    ticks : callable, default time.monotonic
        Seconds of a monotonic clock.
    nonces : int, default 131,072
        Maximum number of remembered requests per key.
    """

    def __init__(
        self,
        keys: Mapping[str, Key] | Mapping[str, str],
        *,
        acs3_only: bool = False,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        nonces: int = NONCES,
    ) -> None:
        known = [Key(name, key) if isinstance(key, str) else key for name, key in keys.items()]
        self._keys = {key.id: key for key in known}
        self._acs3_only = acs3_only
        self._clock = clock
        self._nonces = {name: Nonces(nonces, ticks) for name in self._keys}
        self._rates = {key.id: RateLimit(key.rate, ticks) for key in known if key.rate}

    def admit(self, head: Head) -> Claim:
        """Check the head of a request.

        A security token (STS) is ignored: the keys are local to this machine.

        Raises
        ------
        Refusal
            The signature is missing or of another method; the key is unknown or expired; the
            time stamp is too far from this machine's time; the nonce was used already; with
            ``ACS3-HMAC-SHA256``, the signature is wrong.
        """
        claim = self._acs3(head) if head.header("authorization") else self._hmac_sha1(head)
        self._nonces[claim.key.id].check(claim.nonce, claim.made, self._clock())
        return claim

    def accept(self, claim: Claim, head: Head, body: bytes | bytearray) -> Key:
        """Check the body of a request whose head was admitted, and remember its nonce.

        Raises
        ------
        Refusal
            The body is not the one that was signed; the request was answered already; the key
            sends too many requests.
        """
        if claim.body_hash:
            if not hmac.compare_digest(claim.body_hash, hashlib.sha256(body).hexdigest()):
                raise Refusal(
                    "SignatureDoesNotMatch", "x-acs-content-sha256 does not match the body."
                )
        elif not hmac.compare_digest(claim.signature, _sign_sha1(claim.key, head, body)):
            raise Refusal("SignatureDoesNotMatch")
        if rate := self._rates.get(claim.key.id):
            rate.take()
        self._nonces[claim.key.id].use(claim.nonce, claim.made, self._clock())
        return claim.key

    def _acs3(self, head: Head) -> Claim:
        match = _ACS3.fullmatch(head.header("authorization"))
        if match is None:
            raise Refusal("IncompleteSignature", "The Authorization header cannot be read.")
        if match["method"] != "ACS3-HMAC-SHA256":
            raise Refusal("InvalidSignatureMethod")
        names = match["names"].split(";")
        required = {"host", *(name for name in head.headers if name.startswith("x-acs-"))}
        if not required <= set(names) or names != sorted(set(names)):
            raise Refusal(
                "IncompleteSignature",
                "SignedHeaders must list host and all x-acs-* headers once, sorted.",
            )
        body_hash = head.header("x-acs-content-sha256")
        if not re.fullmatch("[0-9a-f]{64}", body_hash):
            raise Refusal("IncompleteSignature", "x-acs-content-sha256 is not a SHA-256.")
        key = self._key(match["key"])
        headers = "".join(
            f"{name}:{','.join(sorted(value.strip() for value in head.headers.get(name, ())))}\n"
            for name in names
        )
        query = b"&".join(
            escape(name.encode()) + b"=" + escape(value.encode())
            for name, value in sorted(head.query)
        )
        canonical = "\n".join(
            [head.method, "/", query.decode(), headers, match["names"], body_hash]
        )
        text = "ACS3-HMAC-SHA256\n" + hashlib.sha256(canonical.encode()).hexdigest()
        expected = hmac.digest(key.secret.encode(), text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected, match["signature"]):
            raise Refusal("SignatureDoesNotMatch")
        made = self._made(head.header("x-acs-date"))
        nonce = _check_nonce(head.header("x-acs-signature-nonce"))
        return Claim(key, made, nonce, body_hash=body_hash)

    def _hmac_sha1(self, head: Head) -> Claim:
        given = dict(head.query)
        if len(given) != len(head.query):
            raise Refusal("InvalidParameter", "A name is given twice.")
        if self._acs3_only and "Signature" in given:
            raise Refusal("InvalidSignatureMethod", "This server accepts only ACS3-HMAC-SHA256.")
        # HMAC-SHA1 does not sign headers, so Action and Version must be parameters.
        needed = ("Signature", "SignatureNonce", "Timestamp", "AccessKeyId", "Action", "Version")
        if self._acs3_only or not all(given.get(name) for name in needed):
            raise Refusal("IncompleteSignature")
        if given.get("SignatureMethod") != "HMAC-SHA1" or given.get("SignatureVersion") != "1.0":
            raise Refusal("InvalidSignatureMethod")
        key = self._key(given["AccessKeyId"])
        made = self._made(given["Timestamp"])
        nonce = _check_nonce(given["SignatureNonce"])
        try:
            signature = base64.b64decode(given["Signature"], validate=True)
        except (binascii.Error, ValueError):
            raise Refusal("SignatureDoesNotMatch") from None
        return Claim(key, made, nonce, signature=signature)

    def _key(self, name: str) -> Key:
        key = self._keys.get(name)
        if key is None:
            raise Refusal("InvalidAccessKeyId.NotFound")
        if key.expired(self._clock()):
            raise Refusal("InvalidAccessKeyId.Inactive")
        return key

    def _made(self, stamp: str) -> int:
        match = _TIME.fullmatch(stamp)
        if match is None:
            raise Refusal("InvalidTimeStamp.Format")
        year, month, day, *clock = map(int, match.groups())
        if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31):
            raise Refusal("InvalidTimeStamp.Format")
        made = calendar.timegm((year, month, day, *clock))
        if abs(made - self._clock()) > WINDOW:
            raise Refusal("InvalidTimeStamp.Expired")
        return made


class Nonces:
    """Remember the answered requests of one key while their time stamps are valid.

    A replayed request must carry the signed time stamp, so its nonce is kept under the minute of
    that stamp.  Minutes are forgotten as a whole.  The machine's clock may be set forward or back
    at any time, so a minute is forgotten only when its validity has ended on this clock and on the
    monotonic clock.  After that, its stamps and all earlier ones are refused at any setting of the
    machine's clock.

    Parameters
    ----------
    limit : int
        Most requests to remember.  Further requests are refused.  No request is forgotten to make
        room, because it could be replayed.
    ticks : callable, default time.monotonic
        Seconds of a monotonic clock.
    """

    def __init__(self, limit: int, ticks: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._ticks = ticks
        self._minutes: dict[int, set[bytes]] = {}
        self._keep: dict[int, float] = {}  # minute -> tick until which it is kept
        self._forgotten = -1  # the latest minute that was forgotten
        self._count = 0
        self._lock = threading.Lock()

    def check(self, nonce: str, made: int, now: float) -> None:
        """Refuse a nonce that `use` would refuse, without remembering it."""
        with self._lock:
            self._check(_digest(nonce), made // 60, now)

    def use(self, nonce: str, made: int, now: float) -> None:
        """Remember a nonce.

        Parameters
        ----------
        nonce : str
        made, now : float
            Signed time stamp and current time, in seconds since 1970.

        Raises
        ------
        Refusal
            The nonce was used before (SignatureNonceUsed); its minute was forgotten
            (InvalidTimeStamp.Expired); there are too many nonces (Throttling.Api).
        """
        digest, minute = _digest(nonce), made // 60
        with self._lock:
            self._check(digest, minute, now)
            self._minutes.setdefault(minute, set()).add(digest)
            last = self._ticks() + max((minute + 1) * 60 + WINDOW - now, 0)
            self._keep[minute] = max(self._keep.get(minute, last), last)
            self._count += 1

    def _check(self, digest: bytes, minute: int, now: float) -> None:
        tick = self._ticks()
        over = [m for m in self._minutes if (m + 1) * 60 + WINDOW < now and self._keep[m] < tick]
        for m in over:
            self._count -= len(self._minutes.pop(m))
            del self._keep[m]
            self._forgotten = max(self._forgotten, m)
        if minute <= self._forgotten:
            raise Refusal("InvalidTimeStamp.Expired")
        if digest in self._minutes.get(minute, ()):
            raise Refusal("SignatureNonceUsed")
        if self._count >= self._limit:
            raise Refusal("Throttling.Api", "Too many signed requests within 30 minutes.")


class RateLimit:
    """Limit the requests per second; a burst may have as many (at least one) at once.

    Safe to share between threads.

    Parameters
    ----------
    rate : float
        Requests per second.
    ticks : callable, default time.monotonic
        Seconds.
    """

    def __init__(self, rate: float, ticks: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._most = max(rate, 1.0)
        self._left = self._most
        self._ticks = ticks
        self._at = ticks()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Count one request.

        Raises
        ------
        Refusal
            Throttling.Api.
        """
        with self._lock:
            now = self._ticks()
            self._left = min(self._most, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1:
                raise Refusal("Throttling.Api", "This key sends too many requests.")
            self._left -= 1


def _digest(nonce: str) -> bytes:
    return hashlib.blake2b(nonce.encode(), digest_size=16).digest()


def _check_nonce(nonce: str) -> str:
    if not 0 < len(nonce) <= NONCE_LENGTH:
        raise Refusal("IncompleteSignature", "The nonce is missing or too long.")
    return nonce


def _sign_sha1(key: Key, head: Head, body: bytes | bytearray) -> bytes:
    """Compute the HMAC-SHA1 of method, query and form in blocks, without a second copy."""
    signed: dict[bytes, Iterable[bytes]] = {}
    fields: list[tuple[bytes, Iterable[bytes]]] = [
        (name.encode(), (value.encode(),)) for name, value in head.query if name != "Signature"
    ]
    fields += [(b"".join(unescape(name)), unescape(value)) for name, value in split_form(body)]
    for name, blocks in fields:
        if name in signed:
            raise Refusal("InvalidParameter", "A name is given twice.")
        signed[name] = blocks
    mac: Any = hmac.new(f"{key.secret}&".encode(), f"{head.method}&%2F&".encode(), "sha1")
    for number, name in enumerate(sorted(signed)):
        mac.update((b"%26" if number else b"") + escape_twice(name) + b"%3D")
        for block in signed[name]:
            mac.update(escape_twice(block))
    return bytes(mac.digest())
