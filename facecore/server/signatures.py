"""Signatures of requests, in the two forms in which the vendor's clients write them.

``ACS3-HMAC-SHA256`` signs method, path, query, headers and the body's hash; ``HMAC-SHA1``
(signature version 1.0) signs method, query and form.  Both sign a time stamp and a nonce, so that
a request that was overheard cannot be sent again.
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

from facecore.server.refusals import Refusal

__all__ = ["Nonces", "Received", "Verifier"]

WINDOW = 15 * 60  # seconds that a client's clock may differ
NONCES = 1 << 17  # 70 requests per second, over the 30 minutes that a time stamp can be good for
NONCE_LENGTH = 128

_ACS3 = re.compile(
    r"(?P<method>[A-Z0-9-]+)\s+Credential=(?P<key>[^,\s]+),\s*"
    r"SignedHeaders=(?P<names>[a-z0-9;-]+),\s*Signature=(?P<signature>[0-9a-f]+)"
)
_UNSAFE = re.compile(rb"[^A-Za-z0-9_.~-]")
_ESCAPES = {bytes([code]): b"%%%02X" % code for code in range(256)}
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came, before anything in it is believed.

    Attributes
    ----------
    method : str
    query, form : sequence of (str, str)
        Decoded, in their order.
    headers : mapping of str to sequence of str
        Names in lower case.
    body : bytes
    """

    method: str
    query: Sequence[tuple[str, str]]
    form: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str:
        """The only value of a header; "" where there is none, or more than one."""
        values = self.headers.get(name, ())
        return values[0].strip() if len(values) == 1 else ""


class Verifier:
    """Tells requests that a key's holder signed from all others.

    Safe to share between threads.

    Parameters
    ----------
    keys : mapping of str to str
        Secrets by access key id.
    clock : callable, default time.time
        Seconds since 1970.
    nonces : int, default 131,072
        How many requests are remembered at most.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
        nonces: int = NONCES,
    ) -> None:
        self._keys = dict(keys)
        self._clock = clock
        self._nonces = Nonces(nonces)

    def verify(self, request: Received) -> str:
        """Id of the access key that a request is signed with.

        A security token says nothing here, and is ignored: the keys are this machine's own.

        Raises
        ------
        Refusal
            The signature is missing, wrong, too old or used already.
        """
        if request.header("authorization"):
            return self._acs3(request)
        return self._hmac_sha1(request)

    def _acs3(self, request: Received) -> str:
        match = _ACS3.fullmatch(request.header("authorization"))
        if match is None:
            raise Refusal("IncompleteSignature", "The Authorization header cannot be read.")
        if match["method"] != "ACS3-HMAC-SHA256":
            raise Refusal("InvalidSignatureMethod")
        names = match["names"].split(";")
        required = {"host", *(name for name in request.headers if name.startswith("x-acs-"))}
        if not required <= set(names) or names != sorted(set(names)):
            raise Refusal("IncompleteSignature", "A header is not among those that are signed.")
        hashed = hashlib.sha256(request.body).hexdigest()
        if request.header("x-acs-content-sha256") != hashed:
            raise Refusal("SignatureDoesNotMatch", "x-acs-content-sha256 is not the body's.")
        secret = self._secret(match["key"])
        headers = "".join(
            f"{name}:{','.join(sorted(value.strip() for value in request.headers.get(name, ())))}\n"
            for name in names
        )
        canonical = "\n".join(
            [request.method, "/", _canonical(request.query), headers, match["names"], hashed]
        )
        text = "ACS3-HMAC-SHA256\n" + hashlib.sha256(canonical.encode()).hexdigest()
        expected = hmac.digest(secret.encode(), text.encode(), "sha256").hex()
        self._accept(
            match["key"],
            hmac.compare_digest(expected, match["signature"]),
            request.header("x-acs-date"),
            request.header("x-acs-signature-nonce"),
        )
        return match["key"]

    def _hmac_sha1(self, request: Received) -> str:
        pairs = [*request.query, *request.form]
        signed = [pair for pair in pairs if pair[0] != "Signature"]
        given = dict(pairs)
        # Headers are not signed here, so that Action and Version have to be parameters.
        needed = ("Signature", "SignatureNonce", "Timestamp", "AccessKeyId", "Action", "Version")
        if not all(given.get(name) for name in needed):
            raise Refusal("IncompleteSignature")
        if given.get("SignatureMethod") != "HMAC-SHA1" or given.get("SignatureVersion") != "1.0":
            raise Refusal("InvalidSignatureMethod")
        secret = self._secret(given["AccessKeyId"])
        text = f"{request.method}&%2F&{_encode(_canonical(signed))}"
        expected = hmac.digest(f"{secret}&".encode(), text.encode(), "sha1")
        try:
            signature = base64.b64decode(given["Signature"], validate=True)
        except (binascii.Error, ValueError):
            signature = b""
        self._accept(
            given["AccessKeyId"],
            hmac.compare_digest(expected, signature),
            given["Timestamp"],
            given["SignatureNonce"],
        )
        return given["AccessKeyId"]

    def _secret(self, key: str) -> str:
        if key not in self._keys:
            raise Refusal("InvalidAccessKeyId.NotFound")
        return self._keys[key]

    def _accept(self, key: str, matches: bool, stamp: str, nonce: str) -> None:
        """Believe a time stamp and a nonce only if the signature over them matches."""
        if not matches:
            raise Refusal("SignatureDoesNotMatch")
        match = _TIME.fullmatch(stamp)
        if match is None:
            raise Refusal("InvalidTimeStamp.Format")
        year, month, day, *clock = map(int, match.groups())
        if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31):
            raise Refusal("InvalidTimeStamp.Format")
        made = calendar.timegm((year, month, day, *clock))
        now = self._clock()
        if abs(made - now) > WINDOW:
            raise Refusal("InvalidTimeStamp.Expired")
        if not 0 < len(nonce) <= NONCE_LENGTH:
            raise Refusal("IncompleteSignature", "The nonce is missing or too long.")
        self._nonces.use(f"{key}\n{nonce}", made, now)


class Nonces:
    """Remembers which requests were answered, for as long as their time stamps are good.

    A request can only be repeated with the time stamp that was signed, so it is looked for among
    those of its own minute; a minute that is over is forgotten whole.

    Parameters
    ----------
    limit : int
        Beyond it requests are refused, not forgotten: a forgotten one could be sent again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minutes: dict[int, set[bytes]] = {}
        self._count = 0
        self._lock = threading.Lock()

    def use(self, nonce: str, made: int, now: float) -> None:
        """Remember a nonce.

        Parameters
        ----------
        nonce : str
        made, now : float
            Time stamp that was signed with it, and the time, in seconds since 1970.

        Raises
        ------
        Refusal
            It was used before (SignatureNonceUsed), or there are too many (Throttling.Api).
        """
        digest = hashlib.blake2b(nonce.encode(), digest_size=16).digest()
        with self._lock:
            for minute in [m for m in self._minutes if (m + 1) * 60 + WINDOW < now]:
                self._count -= len(self._minutes.pop(minute))
            used = self._minutes.setdefault(made // 60, set())
            if digest in used:
                raise Refusal("SignatureNonceUsed")
            if self._count >= self._limit:
                raise Refusal("Throttling.Api", "Too many signed requests within 30 minutes.")
            used.add(digest)
            self._count += 1


def _canonical(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{_encode(name)}={_encode(value)}" for name, value in sorted(pairs))


def _encode(text: str) -> str:
    """Percent encoding of RFC 3986, in which only letters, digits and ``-_.~`` stay.

    Three times as fast as `urllib.parse.quote` on base64, which comes here before it is known
    whether the request is anybody's.
    """
    return _UNSAFE.sub(lambda match: _ESCAPES[match[0]], text.encode()).decode()
