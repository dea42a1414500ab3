"""Run uvicorn with JSON answers to malformed requests and with limits on connections.

uvicorn lacks the documented limits: it waits forever for a first head and for a client that does
not read, and does not count connections per address.  It also answers in plain text.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
import socket
from collections.abc import Collection
from typing import Any

import h11
import uvicorn
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

from facecore.errors import InvalidParameter
from facecore.server.app import RETRY_AFTER_MS, Application
from facecore.server.refusals import Refusal
from facecore.server.router import Answer, refuse

__all__ = ["Server", "bind"]

STOP_SECONDS = 30  # for current requests, when the server is told to stop
# Kernel buffers of a connection, in bytes: a client that never reads costs no more.
SEND_BUFFER = 64 * 2**10
RECEIVE_BUFFER = 256 * 2**10
OWN_FILES = 128  # descriptors for the gallery and libraries
_WAITING = 2048  # connections that the system keeps until they are accepted
WORKER_FILES = 8  # descriptors per worker for the database, downloads and decoding


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket; it listens only when the server runs.

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
        # On Windows, SO_REUSEADDR would let a second server take the port.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(address)
    except OSError as error:
        sock.close()
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(
            f"port {port} of {host} cannot be used: {reason}", "choose another with --port"
        ) from error
    return sock


def reserve_files(connections: int, workers: int) -> None:
    """Raise the limit on open files to what these connections and workers need.

    Raises
    ------
    InvalidParameter
        The system does not allow that many.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    needed = connections + OWN_FILES + WORKER_FILES * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise InvalidParameter(
            f"{connections} connections and {workers} workers need {needed} open files, "
            f"and {hard} are allowed",
            "raise the limit: ulimit -Hn, or LimitNOFILE= in a systemd unit",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


logger = logging.getLogger("facecore.server")


class Server(uvicorn.Server):
    """Runs an application on a bound socket until SIGINT or SIGTERM.

    Parameters
    ----------
    application : Application

    Raises
    ------
    InvalidParameter
        The process may not open enough files for the allowed connections.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        reserve_files(application.limits.connections, application.workers)
        super().__init__(
            uvicorn.Config(
                application,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=OWN_FILES // 2,  # asyncio accepts as many before the limits count any
                timeout_graceful_shutdown=STOP_SECONDS,
                timeout_keep_alive=max(1, round(application.limits.head_seconds)),
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and log the address."""
        await super().startup(sockets)
        for sock in sockets or ():
            sock.listen(_WAITING)  # the event loop set it to the number that it accepts at a time
            host, port = sock.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            logger.info("listening on http://%s:%d", host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the current requests; refuse new ones."""
        self._application.stop()
        await super().shutdown(sockets)
        self._application.close()


class _StrictBuffer(ReceiveBuffer):
    """h11's buffer, which also refuses heads that another parser could read differently.

    These are heads with line breaks without a carriage return, or with folded headers, which are
    obsolete (RFC 9112, 2.2 and 5.2).
    """

    _LOOSE = re.compile(rb"(?<!\r)\n|\n[ \t]|\r(?!\n)")
    _reads_head = False

    def maybe_extract_lines(self) -> list[bytearray] | None:
        self._reads_head = True
        try:
            return super().maybe_extract_lines()
        finally:
            self._reads_head = False

    def maybe_extract_at_most(self, count: int) -> bytearray | None:
        if not 0 < len(self) <= count:
            return super().maybe_extract_at_most(count)
        data, self._data = self._data, bytearray()  # h11 would copy a body twice
        self._next_line_search = self._multiple_lines_search = 0
        return data

    def _extract(self, count: int) -> bytearray:
        data = super()._extract(count)
        if self._reads_head and self._LOOSE.search(data):
            raise h11.RemoteProtocolError("bare line break or folded header")
        return data


class _Protocol(H11Protocol):
    """A connection with limits on how long the client may keep the server waiting."""

    def __init__(self, config: uvicorn.Config, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)
        application = config.app
        assert isinstance(application, Application)
        self._limits = application.limits
        self._log = application.log
        self.conn._receive_buffer = _StrictBuffer()
        # Per connection; the application reads it from the scope's state.
        self.app_state = {"answered": 0}
        self._since = self.loop.time()  # when the server began to wait for this client
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self.origin = ""

    @property
    def waits(self) -> bool:
        """Whether the client must act next: send a head or the rest of a body, or read."""
        idle = self.cycle is None or self.cycle.response_complete
        return idle or self.cycle.more_body or self.flow.write_paused

    @property
    def ends(self) -> bool:
        """Whether the next step of the event loop closes the connection."""
        return self.transport.is_closing() and not self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # a pause then means a client that does not read
        self.origin = _origin(self.client[0] if self.client else "")
        self._await_head()
        others = [
            other
            for other in self.connections
            if isinstance(other, _Protocol) and other is not self and not other.ends
        ]
        own = [other for other in others if self.origin and other.origin == self.origin]
        if len(own) >= self._limits.address_connections:
            self._make_room(own)
        elif len(others) >= self._limits.connections:
            self._make_room(others)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that has stopped sending but still reads."""
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
        self.app_state["answered"] += 1
        self._await_head()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Refusal("InvalidRequest"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._since = self.loop.time()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(
                self._limits.write_seconds, self.transport.abort
            )

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()

    def _make_room(self, others: Collection[_Protocol]) -> None:
        """Close the connection that has kept the server waiting the longest, or else this one."""
        waiting = [other for other in others if other.waits]
        closed = min(waiting, key=lambda other: other._since, default=self)
        closed._refuse(Refusal("Throttling.Api", "Too many connections."))
        if closed.flow.write_paused:  # the answer would wait for the client too
            closed.transport.abort()

    def _await_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self._limits.head_seconds, self._no_head)

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
            if self.cycle is None or self.cycle.response_complete:  # else the application logs it
                self._log.write("", answer, 0, 0.0)
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


def _origin(address: str) -> str:
    """Return the unit of the connection limit: IPv4 address or IPv6 /64; "" for loopback."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # not an internet socket
        return ""
    ip = getattr(ip, "ipv4_mapped", None) or ip  # as a dual-stack socket shows IPv4 clients
    if ip.is_loopback:
        return ""
    return str(ip if ip.version == 4 else ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))


class LineFormatter(logging.Formatter):
    """Format log records as lines of JSON; a request's line is JSON already."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a traceback: its values may be parts of a request."""
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
