"""The ASGI application: bodies within limits, work within threads, one line of log per request."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from facecore._utils.cpus import usable_cpus
from facecore.errors import InvalidParameter
from facecore.server.refusals import Refusal
from facecore.server.router import Answer, Dispatcher, Service, refuse
from facecore.server.signatures import Received, Verifier

__all__ = ["Application", "ServerLimits"]

RETRY_AFTER_MS = 1000
# What is too large is read on for a while and thrown away: a client that is still sending does
# not see an answer.
DRAINED = 4

access = logging.getLogger("facecore.server.access")


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What requests may take of this machine.

    Attributes
    ----------
    body_bytes : int
        Of one body; a picture of 10 MiB takes 14.3 MiB as an escaped base64 form.
    body_seconds : float
        For one body to arrive.
    held_bytes : int
        Of all bodies that are read or wait.
    workers : int
        Requests that are worked on at a time; 0 for one per usable processor, at least 4, as
        some of them only wait for a download.
    queue : int
        Requests that wait, per worker.

    Raises
    ------
    InvalidParameter
        A limit is negative, or 0 where nothing would pass.
    """

    body_bytes: int = 16 * 2**20
    body_seconds: float = 30.0
    held_bytes: int = 128 * 2**20
    workers: int = 0
    queue: int = 8

    def __post_init__(self) -> None:
        for name in ("body_bytes", "body_seconds", "held_bytes", "workers", "queue"):
            value, least = getattr(self, name), 0 if name in ("workers", "queue") else 1e-3
            if not value >= least:
                raise InvalidParameter(f"{name} is {value!r:.80}, must be at least {least:g}")


@dataclass(slots=True)
class _Held:
    """What one request holds of the bytes that all may hold together."""

    size: int = 0


class Application:
    """Serves the operations at ``/`` and its own state at ``/health``.

    Parameters
    ----------
    service : Service
        Answers the operations; usually a `facecore.operations.FaceService`.
    keys : mapping of str to str, optional
        Secrets by access key id.  Without them no request has to be signed: for programs on
        this machine alone.
    limits : ServerLimits, optional
    """

    def __init__(
        self,
        service: Service,
        keys: Mapping[str, str] | None = None,
        limits: ServerLimits = ServerLimits(),
    ) -> None:
        self._dispatcher = Dispatcher(service, None if keys is None else Verifier(keys))
        self._limits = limits
        workers = limits.workers or max(4, usable_cpus())
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="facecore-request")
        self._most = workers * (1 + limits.queue)
        self._pending = 0
        self._held = 0
        self._stopping = False

    def stop(self) -> None:
        """Answer no further request; those that are here are finished."""
        self._stopping = True

    def close(self) -> None:
        """Wait for the threads, after the last request."""
        self._threads.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served here")
        started = time.perf_counter()
        request = Request(scope, receive)
        held = _Held()
        try:
            answer = await self._answer(request, held)
        except Refusal as refusal:
            answer = refuse(refusal)
        except ClientDisconnect:
            answer = Answer(499, b"", "ClientDisconnected", "")
        headers = {}
        if answer.code == "Throttling.Api":
            headers["x-acs-retry-after"] = str(RETRY_AFTER_MS)
        if answer.code in ("RequestTooLarge", "RequestTimeout"):
            headers["connection"] = "close"  # the rest of the body is still on its way
        log_request(scope["method"], answer, held.size, time.perf_counter() - started)
        response = Response(answer.body, answer.status, headers, answer.media_type)
        await response(scope, receive, send)

    async def _answer(self, request: Request, held: _Held) -> Answer:
        if self._stopping:
            raise Refusal("ServiceUnavailable")
        path, method = request.scope["path"], request.method
        if path == "/health" and method == "GET":
            return Answer(200, b'{"status": "ok"}', "Success", "", "Health")
        if path != "/":
            raise Refusal("InvalidApi.NotFound")
        if method not in ("GET", "POST"):
            raise Refusal("UnsupportedHTTPMethod")
        try:
            body = await self._body(request, held)
            if self._pending >= self._most:
                raise Refusal("Throttling.Api")
            self._pending += 1
            try:
                headers: dict[str, list[str]] = {}
                for name, value in request.headers.items():
                    headers.setdefault(name, []).append(value)
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads,
                    self._dispatcher.answer,
                    Received(method, (), headers=headers, body=body),
                    request.scope["query_string"],
                    request.scope.get("scheme", "http"),
                )
            finally:
                self._pending -= 1
        finally:
            self._held -= held.size

    async def _body(self, request: Request, held: _Held) -> bytes:
        """The body, if it is within the limits."""
        limits = self._limits
        chunks: list[bytes] = []
        refusal: Refusal | None = None
        thrown = 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for chunk in request.stream():
                    if refusal is None and held.size + len(chunk) > limits.body_bytes:
                        refusal = Refusal("RequestTooLarge")
                    elif refusal is None and self._held + len(chunk) > limits.held_bytes:
                        refusal = Refusal("Throttling.Api")
                    if refusal is None:
                        held.size += len(chunk)
                        self._held += len(chunk)
                        chunks.append(chunk)
                        continue
                    chunks.clear()
                    thrown += len(chunk)
                    if thrown > DRAINED * limits.body_bytes:
                        break
        except TimeoutError:
            raise refusal or Refusal("RequestTimeout") from None
        if refusal is not None:
            raise refusal
        return b"".join(chunks)


def log_request(method: str, answer: Answer, size: int, seconds: float) -> None:
    """One line of JSON; never a picture, a vector, a user's id or a secret."""
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "method": method if method in ("GET", "POST") else "other",
        "operation": answer.operation or None,
        "status": answer.status,
        "code": answer.code,
        "bytes": size,
        "ms": round(seconds * 1000, 1),
        "request_id": answer.request_id or None,
    }
    access.info(json.dumps(line))
