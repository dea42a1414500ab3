"""Overhead of FaceCompare over HTTP, against engine.compare on the same bytes.

    python -m benchmarks serving
    python -m benchmarks serving --rounds 400 --pack mobilefacenet --json serving.json

One client sends one request at a time, signed in advance with ACS3-HMAC-SHA256, on one connection
to `facecore serve` in a separate process.  All candidates take turns; all figures are medians of
the rounds.  Prints wall time and the processor time of client, server and its decoding processes
together, which other load disturbs less (Linux).  The last row is the vendor's own client,
including its signing and connecting.  Needs the extra `dev`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_plus

import numpy as np
from alibabacloud_cloudauth_intl20220809 import models
from alibabacloud_cloudauth_intl20220809.client import Client
from alibabacloud_tea_openapi.utils import Utils
from alibabacloud_tea_openapi.utils_models import Config

from benchmarks._measuring import describe, machine, write_json
from benchmarks._pictures import portraits
from facecore import FaceEngine, Gallery
from facecore.operations import FaceService

KEY, SECRET = "benchmark", "a-secret-of-the-benchmark"
BIZ = "benchmark"
WARM = 10


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Start `facecore serve` in another process; yield its port and process id."""
    keys = folder / "keys"
    keys.write_text(f"{KEY} {SECRET}\n")
    keys.chmod(0o600)
    command = [sys.executable, "-m", "facecore.cli", "serve", "--port", "0", "--keys", str(keys)]
    log = (folder / "log").open("w+")
    process = subprocess.Popen(
        [*command, "--gallery", str(folder / "gallery"), *options],
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    try:
        line = ""
        while not line.endswith("\n") and process.poll() is None:
            time.sleep(0.05)
            log.seek(0)
            line = log.readline()
        yield int(json.loads(line)["message"].rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait()
        log.close()


def on_processor(*processes: int) -> float:
    """Return the processor seconds of these processes' threads (proc(5): schedstat)."""
    nanoseconds = 0
    for process in processes:
        for file in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # the thread has ended
                nanoseconds += int(file.read_text().split()[0])
    return nanoseconds / 1e9


def children(process: int) -> list[int]:
    """Return the processes that a process has started: the server's decoders."""
    files = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def sign(port: int, operation: str, body: bytes) -> dict[str, str]:
    """Return request headers signed with ACS3-HMAC-SHA256 and the key of `serving`."""
    hashed = hashlib.sha256(body).hexdigest()
    headers = {
        "host": f"127.0.0.1:{port}",
        "x-acs-action": operation,
        "x-acs-version": "2022-08-09",
        "x-acs-date": Utils.get_timestamp(),
        "x-acs-signature-nonce": Utils.get_nonce(),
        "x-acs-content-sha256": hashed,
        "content-type": "application/x-www-form-urlencoded",
    }
    request = SimpleNamespace(method="POST", pathname="/", query={}, headers=headers)
    headers["authorization"] = Utils.get_authorization(
        request, "ACS3-HMAC-SHA256", hashed, KEY, SECRET
    )
    return headers


class Signed:
    """Send requests signed in advance, on one connection."""

    def __init__(self, port: int, body: str, count: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._body = body.encode()
        self._headers = [sign(port, "FaceCompare", self._body) for _ in range(count)]

    def __call__(self, turn: int) -> dict[str, Any]:
        self._connection.request("POST", "/", self._body, self._headers[turn])
        answer: dict[str, Any] = json.load(self._connection.getresponse())
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument(
        "--in-a-row",
        type=int,
        default=1,
        help="calls in one turn; with 1, each process finds the caches filled by the others",
    )
    parser.add_argument("--pack", default="compact")
    parser.add_argument(
        "--bytes", type=int, default=100_000, help="of a picture; the document advises 50-100 KB"
    )
    parser.add_argument("--threads", type=int, default=1, help="per model, here and in the server")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        os.environ.pop(name, None)  # the vendor's client would also use it for 127.0.0.1
    a, b = portraits(args.bytes)
    source, target = (base64.b64encode(data).decode() for data in (a, b))
    params = {"MerchantBizId": BIZ, "SourceFacePicture": source, "TargetFacePicture": target}
    body = "&".join(f"{name}={quote_plus(value)}" for name, value in params.items())
    engine = FaceEngine(args.pack, threads=args.threads)
    options = ("--pack", args.pack, "--threads", str(args.threads))
    with (
        tempfile.TemporaryDirectory() as folder,
        Gallery(Path(folder) / "own", engine) as gallery,
        serving(Path(folder), *options) as (port, server),
    ):
        service = FaceService(engine, gallery)
        config = {"access_key_id": KEY, "access_key_secret": SECRET, "region_id": "local"}
        client = Client(Config(**config, endpoint=f"127.0.0.1:{port}", protocol="HTTP"))
        request = models.FaceCompareRequest(
            merchant_biz_id=BIZ, source_face_picture=source, target_face_picture=target
        )
        signed = Signed(port, body, WARM + args.rounds)
        runs: dict[str, Callable[[int], Any]] = {
            "engine.compare": lambda turn: engine.compare(a, b),
            "service.call": lambda turn: service.call("FaceCompare", params),
            "HTTP, signed": signed,
            "HTTP, vendor's client": lambda turn: client.face_compare(request),
        }
        expected = engine.compare(a, b).score
        assert signed(0)["Result"]["FaceComparisonScore"] == expected
        both = (os.getpid(), server, *children(server))
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for first in range(1, WARM + args.rounds, args.in_a_row):
            for name, run in runs.items():
                for turn in range(first, min(first + args.in_a_row, WARM + args.rounds)):
                    busy, start = on_processor(*both), time.perf_counter()
                    run(turn)
                    end = time.perf_counter()
                    times[name].append((end - start, on_processor(*both) - busy))
    facts = machine(["onnxruntime", "uvicorn", "starlette", "alibabacloud-cloudauth-intl20220809"])
    print(describe(facts))
    print(f"pack {args.pack}, {args.threads} threads; pictures of {len(a):,} and {len(b):,} bytes")
    print(f"  {'':22} {'passed':>11} {'':8} {'on a processor':>20}")
    results = {}
    base = np.median(times["engine.compare"][WARM:], axis=0)
    for name in times:
        own = np.median(times[name][WARM:], axis=0)
        shares = own / base - 1
        results[name] = {"ms": (own * 1e3).tolist(), "overhead": shares.tolist()}
        cells = [f"{t * 1e3:8.2f} ms {s:+8.1%}" for t, s in zip(own, shares, strict=True)]
        print(f"  {name:22} {'  '.join(cells)}")
    write_json(args.json, facts, threads=args.threads, results=results)


if __name__ == "__main__":
    main()
