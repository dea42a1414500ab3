"""The log of requests: one line of JSON each; refusals and health checks have a limit."""

from __future__ import annotations

import json
import logging
import time

from facecore.server.router import Answer

__all__ = ["AccessLog"]

REFUSALS = 50  # lines per second for requests that anybody can send

logger = logging.getLogger("facecore.server.access")


class AccessLog:
    """Write a line per request, without pictures, vectors, user ids and secrets.

    Every client that can connect can cause refusals and request the health status.  Beyond 50 of
    them per second, the log only counts them; the next line states how many were left out.
    """

    def __init__(self) -> None:
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def write(self, method: str, answer: Answer, size: int, seconds: float) -> None:
        """Log one answer.

        Parameters
        ----------
        method : str
        answer : Answer
        size : int
            Size of the body in bytes.
        seconds : float
            Time from the head's arrival to the answer.
        """
        if answer.operation in ("", "Health"):
            second = int(time.monotonic())
            if second != self._second:
                self._second, self._lines = second, 0
            self._lines += 1
            if self._lines > REFUSALS:
                self._left_out += 1
                return
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
        if self._left_out:
            line["left_out"] = self._left_out
            self._left_out = 0
        logger.info(json.dumps(line))
