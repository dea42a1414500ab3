"""A web server for tests: pictures, and addresses that stall, refuse or answer 404."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class PictureServer:
    """Serves the added pictures on 127.0.0.1."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._closing = threading.Event()
        files, closing = self._files, self._closing

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/stall"):
                    closing.wait(30)
                    return
                data = files.get(self.path.split("/")[1].split("?")[0])
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a client may hang up after the length
                    self.wfile.write(data or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.base = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> PictureServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def url(self, data: bytes, name: str = "") -> str:
        """Return the address of `data`; if given, `name` is the last part of its path."""
        key = f"{hash(data) & 0xFFFFFFFFFFFF:x}"
        self._files[key] = data
        return f"{self.base}/{key}{name}"

    def special(self, kind: str) -> str:
        """Return an address that stalls (timeout), refuses or answers 404."""
        if kind == "timeout":
            return f"{self.base}/stall"
        if kind == "404":
            return f"{self.base}/nowhere"
        with socket.socket() as probe:  # a port that was free a moment ago
            probe.bind(("127.0.0.1", 0))
            return f"http://127.0.0.1:{probe.getsockname()[1]}/"
