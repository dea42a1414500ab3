"""uvicorn, with answers in JSON even to what is no HTTP, and time limits before a request."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from facecore.errors import InvalidParameter
from facecore.server.app import RETRY_AFTER_MS, Application, log_request
from facecore.server.refusals import Refusal
from facecore.server.router import Answer, refuse

__all__ = ["Server", "bind"]

CONNECTIONS = 512  # at a time; each costs a file descriptor
HEAD_SECONDS = 15.0  # for the head of a request, and for an idle connection
STOP_SECONDS = 30  # for requests that are here when the server is told to stop


def bind(host: str, port: int) -> socket.socket:
    """A socket that nobody is connected to yet: it listens only when the server runs.

    Raises
    ------
    InvalidParameter
        The address is not this machine's, or in use.
    """
    if not 0 <= port <= 65535:
        raise InvalidParameter(f"port {port} is not within 0..65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InvalidParameter(f"there is no address {host!r:.80}, port {port}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(
            f"port {port} of {host} cannot be used: {reason}", "choose another with --port"
        ) from error
    return sock


logger = logging.getLogger("facecore.server")


class Server(uvicorn.Server):
    """Runs an application on a bound socket until SIGINT or SIGTERM.

    Parameters
    ----------
    application : Application
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        super().__init__(
            uvicorn.Config(
                application,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
                timeout_keep_alive=int(HEAD_SECONDS),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        for sock in sockets or ():
            host, port = sock.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            logger.info("listening on http://%s:%d", host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the requests that are here; refuse those that still come."""
        self._application.stop()
        await super().shutdown(sockets)
        self._application.close()


class _Protocol(H11Protocol):
    """A connection; uvicorn's own answers are plain text, and it waits for a head for ever."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > CONNECTIONS:
            self._refuse(Refusal("Throttling.Api", "Too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is not None:
            self._head.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that has said all it will say, and still listens."""
        if self.cycle is None or self.cycle.response_complete:
            if self.conn.trailing_data[0]:
                self._refuse(Refusal("InvalidRequest"))
            return False
        if self.cycle.more_body:
            self._refuse(Refusal("InvalidRequest"))
            return False
        self.cycle.keep_alive = False
        return True

    def on_response_complete(self) -> None:
        self._await_head()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Refusal("InvalidRequest"))

    def _await_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
        self._head = self.loop.call_later(HEAD_SECONDS, self._no_head)

    def _no_head(self) -> None:
        if self.transport.is_closing() or (self.cycle and not self.cycle.response_complete):
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(Refusal("RequestTimeout"))
        else:
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        answer = refuse(refusal)
        try:
            self._send(answer)
        except h11.LocalProtocolError:  # an answer is on its way already
            pass
        else:
            if self.cycle is None or self.cycle.response_complete:  # it logs its own end
                log_request("", answer, 0, 0.0)
        self.transport.close()

    def _send(self, answer: Answer) -> None:
        headers = [
            ("content-type", answer.media_type),
            ("content-length", str(len(answer.body))),
            ("connection", "close"),
        ]
        if answer.code == "Throttling.Api":
            headers.append(("x-acs-retry-after", str(RETRY_AFTER_MS)))
        for event in (
            h11.Response(status_code=answer.status, headers=headers),
            h11.Data(data=answer.body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")


class LineFormatter(logging.Formatter):
    """Log records as lines of JSON; a request's line is JSON already."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; no traceback, as its values may be parts of a request."""
        text = record.getMessage()
        if record.name == "facecore.server.access":
            return text
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": text,
        }
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line)
