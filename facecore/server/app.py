"""The ASGI application: check heads before bodies, limit bodies, run operations in threads."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from facecore._utils.cpus import usable_cpus
from facecore.errors import FacecoreError, InvalidParameter
from facecore.server.access_log import AccessLog
from facecore.server.forms import read_form
from facecore.server.keys import Key
from facecore.server.refusals import Refusal
from facecore.server.router import Admitted, Answer, Dispatcher, Service, refuse
from facecore.server.signatures import Head, Verifier
from facecore.server.uploads import SECONDS as UPLOAD_SECONDS
from facecore.server.uploads import is_upload

__all__ = ["Application", "ServerLimits"]

RETRY_AFTER_MS = 1000
# Read and discard the body of a refused request, up to these limits: a client that is still
# sending does not see an answer.
DRAIN_SECONDS = 3.0
DRAIN_BYTES = 32 * 2**20
HEALTH_SECONDS = 5.0  # how long the result of a health check is valid
HEALTH_WAIT = 2.0  # longest wait for a health check


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits on the resources that clients may use.

    Attributes
    ----------
    body_bytes : int
        Bytes of one body; a picture of 10 MiB takes 14.3 MiB as an escaped base64 form.
    body_seconds : float
        Seconds for one body to arrive.
    held_bytes : int
        Bytes of all bodies that are being read or wait.
    workers : int
        Requests that are carried out at a time; 0 for one per usable processor, at least 4,
        because some only wait for a download.
    queue : int
        Requests that wait, per worker.
    connections : int
        Open connections.
    address_connections : int
        Open connections from one address.  Loopback, from which a reverse proxy connects, is
        exempt.
    connection_requests : int
        Requests on one connection before it is closed.
    head_seconds : float
        Seconds for the head of a request to arrive, and until an idle connection is closed.
    write_seconds : float
        Seconds for the client to read an answer.

    Raises
    ------
    InvalidParameter
        A limit is negative, or is 0 and would block every request.
    """

    body_bytes: int = 16 * 2**20
    body_seconds: float = 30.0
    held_bytes: int = 128 * 2**20
    workers: int = 0
    queue: int = 8
    connections: int = 512
    address_connections: int = 64
    connection_requests: int = 1000
    head_seconds: float = 15.0
    write_seconds: float = 15.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value, least = getattr(self, name), 0 if name in ("workers", "queue") else 1e-3
            if not value >= least:
                raise InvalidParameter(f"{name} is {value!r:.80}, must be at least {least:g}")


@dataclass(slots=True)
class _Held:
    """One request's share of the bytes that all requests may hold."""

    size: int = 0
    unproven: int = 0
    whole: bool = False  # the body has been read to its end


class Application:
    """Serves the operations at ``/`` and the state of the server at ``/health``.

    Parameters
    ----------
    service : Service
        Answers the operations; usually a `facecore.operations.FaceService`.
    keys : mapping of str to Key or str, optional
        Access keys by id; a string is the secret of a key without restrictions.  Without keys,
        requests need no signature, and the server is for programs on this machine only.
    limits : ServerLimits, optional
    acs3_only : bool, default False
        Refuse the older signature, ``HMAC-SHA1``.

    Attributes
    ----------
    workers : int
        Requests that are carried out at a time.
    """

    def __init__(
        self,
        service: Service,
        keys: Mapping[str, Key] | Mapping[str, str] | None = None,
        limits: ServerLimits = ServerLimits(),
        *,
        acs3_only: bool = False,
    ) -> None:
        self.limits = limits
        self.log = AccessLog()
        self._service = service
        verifier = None if keys is None else Verifier(keys, acs3_only=acs3_only)
        self._dispatcher = Dispatcher(service, verifier)
        self.workers = workers = limits.workers or max(4, usable_cpus())
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="facecore-request")
        self._most = workers * (1 + limits.queue)
        # With several keys, no single key can take all places.
        self._share = self._most if keys is None or len(keys) < 2 else -(-self._most // 2)
        self._pending: Counter[str] = Counter()
        self._held = 0
        self._unproven = 0  # held bytes of requests that only the body can authenticate
        # A client that knows only the id of a key cannot fill the room for bodies.
        self._most_unproven = limits.held_bytes // (1 if keys is None else 2)
        self._stopping = False
        self._health = _Health(service)

    def stop(self) -> None:
        """Refuse further requests; current requests continue."""
        self._stopping = True

    def close(self) -> None:
        """Drop waiting requests and wait for the threads; call this after the last request."""
        self._threads.shutdown(cancel_futures=True)
        self._health.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served here")
        started = time.perf_counter()
        request = Request(scope, receive)
        as_xml = is_upload(request.method, request.headers.get("content-type", ""))
        held = _Held()
        headers = {}
        try:
            try:
                answer = await self._answer(request, held)
            except Refusal as refusal:
                answer = refuse(refusal, as_xml=as_xml)
                if not (held.whole or await _drain(request)):
                    headers["connection"] = "close"
        except ClientDisconnect:
            answer = Answer(499, b"", "ClientDisconnected", "")
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            # uvicorn would answer in plain text
            answer = refuse(Refusal("ServiceUnavailable"), as_xml=as_xml)
        if answer.code == "Throttling.Api":
            headers["x-acs-retry-after"] = str(RETRY_AFTER_MS)
        answered = scope.get("state", {}).get("answered", 0)
        if answered + 1 >= self.limits.connection_requests:
            headers["connection"] = "close"
        self.log.write(scope["method"], answer, held.size, time.perf_counter() - started)
        response = Response(answer.body, answer.status, headers, answer.media_type)
        await response(scope, receive, send)

    async def _answer(self, request: Request, held: _Held) -> Answer:
        if self._stopping:
            raise Refusal("ServiceUnavailable")
        path, method = request.scope["path"], request.method
        if path == "/health" and method == "GET":
            return await self._health.answer()
        if path != "/":
            raise Refusal("InvalidApi.NotFound")
        if method not in ("GET", "POST"):
            raise Refusal("UnsupportedHTTPMethod")
        length = self._length(request)
        admitted = self._admit(request, length > 0)
        self._check_places(admitted.proven)
        try:
            body = await self._body(request, held, is_proven=bool(admitted.proven))
            bodies: list[bytes | bytearray] = [body]
            del body  # the list has the only reference
            self._check_places(admitted.proven)
            self._pending[admitted.proven] += 1
            try:
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(
                    self._threads, self._dispatcher.answer, admitted, bodies
                )
                if answer.operation == "Upload":  # perhaps the last upload, and never used
                    loop.call_later(UPLOAD_SECONDS, self._dispatcher.uploads.forget)
                return answer
            finally:
                self._pending[admitted.proven] -= 1
        finally:
            self._held -= held.size
            self._unproven -= held.unproven

    def _length(self, request: Request) -> int:
        """Return the length of the body in bytes, as stated in the head."""
        headers = request.headers
        if "transfer-encoding" in headers:
            # Two stated lengths allow request smuggling past a proxy.  A body in chunks of one
            # byte costs more than it holds.
            raise Refusal("InvalidRequest" if "content-length" in headers else "LengthRequired")
        length = int(headers.get("content-length", "0"))  # h11 accepts only digits
        if length > self.limits.body_bytes:
            raise Refusal("RequestTooLarge")
        return length

    def _admit(self, request: Request, has_body: bool) -> Admitted:
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name, []).append(value)
        head = Head(request.method, read_form(request.scope["query_string"]), headers)
        return self._dispatcher.admit(head, has_body, request.scope.get("scheme", "http"))

    def _check_places(self, owner: str) -> None:
        if self._pending.total() >= self._most or self._pending[owner] >= self._share:
            raise Refusal("Throttling.Api")

    async def _body(self, request: Request, held: _Held, *, is_proven: bool) -> bytearray:
        """Read the body, if there is room for it."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in request.stream():
                    unproven = 0 if is_proven else len(chunk)
                    if (
                        self._held + len(chunk) > self.limits.held_bytes
                        or self._unproven + unproven > self._most_unproven
                    ):
                        raise Refusal("Throttling.Api")
                    held.size += len(chunk)
                    held.unproven += unproven
                    self._held += len(chunk)
                    self._unproven += unproven
                    body += chunk
        except TimeoutError:
            raise Refusal("RequestTimeout") from None
        held.whole = True
        return body


async def _drain(request: Request) -> bool:
    """Discard the rest of a body; return whether all of it arrived."""
    headers = request.headers
    if "transfer-encoding" in headers or "expect" in headers:
        return False
    if int(headers.get("content-length", "0")) > DRAIN_BYTES:
        return False
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while (message := await request.receive())["type"] == "http.request":
                if not message.get("more_body", False):
                    return True
    except TimeoutError:
        pass
    return False


class _Health:
    """Check whether the gallery can be written, at most once every few seconds."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._look: asyncio.Future[str] | None = None
        self._looked = 0.0

    def close(self) -> None:
        """Abandon a check that does not return."""
        if self._look is not None:
            self._look.cancel()

    async def answer(self) -> Answer:
        """Answer ``GET /health`` with 200, or with 503 and the error."""
        fresh = time.monotonic() - self._looked < HEALTH_SECONDS
        if self._look is None or (self._look.done() and not fresh):
            self._look = asyncio.wrap_future(self._start())
            self._looked = time.monotonic()
        try:
            problem = await asyncio.wait_for(asyncio.shield(self._look), HEALTH_WAIT)
        except TimeoutError:
            problem = "GalleryUnavailable"
        status = {"status": problem or "ok"}
        code = problem or "Success"
        return Answer(503 if problem else 200, json.dumps(status).encode(), code, "", "Health")

    def _start(self) -> Future[str]:
        """Check in a daemon thread: if it hangs, it blocks neither requests nor the exit."""
        look: Future[str] = Future()
        look.set_running_or_notify_cancel()  # from now on it cannot be cancelled

        def work() -> None:
            look.set_result(self._problem())

        try:
            threading.Thread(target=work, name="facecore-health", daemon=True).start()
        except RuntimeError:  # the system's limit on threads
            look.set_result("ServiceUnavailable")
        return look

    def _problem(self) -> str:
        try:
            self._service.check()
        except FacecoreError as error:
            return error.code
        except Exception as error:
            return type(error).__name__
        return ""
