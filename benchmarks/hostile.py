"""Resource use and durability of `facecore serve` under load and hostile clients.

    python -m benchmarks hostile
    python -m benchmarks hostile --clients 64 --seconds 180 --json hostile.json

Three parts, each against a new server on 127.0.0.1:

1. Unsigned bodies of 15 MiB, four at once: the server's memory growth and its processor time per
   body.  The last two rows name an existing key with a wrong signature of the older kind, which
   can only be checked after the body has arrived.
2. Clients that send requests endlessly and never read responses, then one request of /health:
   the server's memory growth and log lines.
3. Clients that enrol faces until SIGTERM stops the server: every acknowledged enrolment must be in
   the gallery.

Exits with status 1 if part 3 loses a face.  Memory and processor time are read from /proc
(Linux).  Needs the extra `dev`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from benchmarks._measuring import describe, machine, write_json
from benchmarks._pictures import portraits
from benchmarks.serving import KEY, on_processor, serving, sign
from facecore import FaceEngine, Gallery

BODY = 15 * 2**20
AT_ONCE = 4
UNITS = (b"%", b"%zz", b"%41", b"+", b"a", b"a=b&")
REQUEST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def resident(process: int) -> int:
    """Return the bytes of a process's anonymous memory."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("no RssAnon")


@contextlib.contextmanager
def watched(process: int) -> Iterator[dict[str, float]]:
    """Measure a process's peak memory growth in MB and its processor seconds."""
    found: dict[str, float] = {}
    ended = threading.Event()
    before, busy = resident(process), on_processor(process)
    peak = before

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.002):
            peak = max(peak, resident(process))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        found["MB"] = (max(peak, resident(process)) - before) / 1e6
        found["seconds"] = on_processor(process) - busy


def at_once(count: int, run: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def send(port: int, target: str, body: bytes) -> str:
    """Send a body; return the code of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"content-type": "application/x-www-form-urlencoded"}
    try:
        connection.request("POST", target, body, headers)
        return str(json.load(connection.getresponse())["Code"])
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def bodies(pack: str) -> list[dict[str, Any]]:
    """Part 1."""
    stamp = quote_plus(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    named = (
        f"/?Action=AddFaceRecord&Version=2022-08-09&AccessKeyId={KEY}&Timestamp={stamp}"
        "&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0&Signature=AAAA&SignatureNonce="
    )
    cases = [(unit, "/") for unit in UNITS] + [(b"+", named), (b"%41", named)]
    rows = []
    for unit, target in cases:
        body = b"a=" + unit * (BODY // len(unit))
        codes: Counter[str] = Counter()
        # A new server each time: memory of an earlier body would hide the growth.
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder), "--pack", pack) as at:
            port, process = at

            def run(number: int, port: int = port, target: str = target) -> None:
                nonce = f"{time.monotonic_ns()}{number}" if target == named else ""
                codes[send(port, target + nonce, body)] += 1  # noqa: B023

            with watched(process) as cost:
                at_once(AT_ONCE, run)
        row = {
            "body": unit.decode() + ("" if target == "/" else ", with a key's id"),
            "MB": cost["MB"],
            "seconds": cost["seconds"] / AT_ONCE,
            "codes": dict(codes),
        }
        rows.append(row)
        answers = ", ".join(codes)
        print(f"  {row['body']:24} {row['MB']:8.1f} MB {row['seconds']:8.3f} s  {answers}")
    return rows


def never_reading(pack: str, clients: int, seconds: float) -> dict[str, Any]:
    """Part 2."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), "--pack", pack) as (port, process),
        watched(process) as cost,
    ):
        end = time.monotonic() + seconds
        hung_up = 0

        def run(number: int) -> None:
            nonlocal hung_up
            while time.monotonic() < end:
                with socket.socket() as sock:
                    sock.settimeout(seconds)
                    try:
                        sock.connect(("127.0.0.1", port))
                        while time.monotonic() < end:
                            sock.sendall(REQUEST * 100)
                    except TimeoutError:
                        continue
                    except OSError:
                        hung_up += 1

        threads = threading.Thread(target=at_once, args=(clients, run))
        threads.start()
        time.sleep(seconds / 2)
        started = time.perf_counter()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as one:
            one.request("GET", "/health")
            status = one.getresponse().status
        health = time.perf_counter() - started
        threads.join()
        lines = len((Path(folder) / "log").read_text().splitlines())
    print(
        f"  {clients} clients for {seconds:g} s: {cost['MB']:.1f} MB, {lines / seconds:.0f} lines "
        f"a second, hung up on {hung_up} times; /health {status} after {health * 1e3:.0f} ms"
    )
    return {"MB": cost["MB"], "lines": lines, "hung_up": hung_up, "health": status, "took": health}


def until_sigterm(pack: str, clients: int, seconds: float, picture: bytes) -> dict[str, Any]:
    """Part 3."""
    face = quote_plus(base64.b64encode(picture).decode())
    acknowledged: list[str] = []
    codes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Gallery(folder / "gallery", FaceEngine(pack)) as gallery:
            gallery.create_group("load")
        with serving(folder, "--pack", pack) as (port, process):
            stopped = threading.Event()

            def run(client: int) -> None:
                for number in range(10**6):
                    user = f"u{client}-{number}"
                    form = f"ProductCode=FACE_ENROLL&FaceGroupCode=load&MerchantUserId={user}"
                    body = f"{form}&FacePicture={face}".encode()
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    try:
                        connection.request("POST", "/", body, sign(port, "AddFaceRecord", body))
                        answer = json.load(connection.getresponse())
                    except (OSError, http.client.HTTPException, ValueError) as error:
                        codes[type(error).__name__] += 1
                        if stopped.is_set():
                            return
                        continue
                    finally:
                        connection.close()
                    codes[answer["Code"]] += 1
                    if answer["Code"] == "Success" and answer["Result"]["Passed"] == "Y":
                        acknowledged.append(user)
                    elif answer["Code"] == "Throttling.Api":
                        time.sleep(0.1)

            threads = threading.Thread(target=at_once, args=(clients, run))
            threads.start()
            time.sleep(seconds)
            stopped.set()
            started = time.perf_counter()
            os.kill(process, signal.SIGTERM)
            threads.join()
        took = time.perf_counter() - started
        with Gallery(folder / "gallery", FaceEngine(pack)) as gallery:
            stored = {record.user_id for record in gallery.records("load", 0, 10**6)}
    lost = sorted(set(acknowledged) - stored)
    print(
        f"  {clients} clients for {seconds:g} s: {len(acknowledged)} acknowledged, {len(stored)} "
        f"stored, {len(lost)} lost; stopped after {took:.1f} s; {dict(codes)}"
    )
    return {
        "acknowledged": len(acknowledged),
        "stored": len(stored),
        "lost": lost,
        "stopped_after": took,
        "codes": dict(codes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=64, help="of parts 2 and 3 (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="of parts 2 and 3 (%(default)s)")
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()
    facts = machine(["uvicorn", "starlette", "h11"])
    print(describe(facts))
    print(f"{AT_ONCE} bodies of {BODY / 2**20:g} MiB at once: growth, processor time for each")
    unsigned = bodies(args.pack)
    print("clients that never read")
    silent = never_reading(args.pack, args.clients, args.seconds)
    print("enrolling until SIGTERM")
    stopped = until_sigterm(args.pack, args.clients, args.seconds, portraits(100_000)[0])
    write_json(args.json, facts, unsigned=unsigned, never_reading=silent, sigterm=stopped)
    sys.exit(bool(stopped["lost"]))


if __name__ == "__main__":
    main()
