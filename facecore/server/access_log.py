"""The log of requests: one line of JSON each, and never a flood."""

from __future__ import annotations

import json
import logging
import time

from facecore.server.router import Answer

__all__ = ["AccessLog"]

REFUSALS = 50  # lines per second for requests that anybody can send

logger = logging.getLogger("facecore.server.access")


class AccessLog:
    """Writes a line per request; never a picture, a vector, a user's id or a secret.

    Anybody who can connect can cause refusals and ask for the health, so beyond 50 per second they
    are counted, and the next line that is written says how many were left out.
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
            Bytes of the body.
        seconds : float
            From the head's arrival to the answer.
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
