"""``facecore serve``: the documented operations over HTTP."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import sys
from pathlib import Path

from facecore.cli.common import MODELS, OK, Answer, Commands, add_key_file, gallery_key
from facecore.cli.common import engine as engine_of
from facecore.errors import InvalidParameter

_SERVE = """\
Serve the documented operations over HTTP.

Clients sign requests with an access key from the key file, as the vendor's clients do.  Without
keys the server accepts only programs on this machine.  HTTP is not encrypted: for access from
other machines, put a reverse proxy with TLS in front.  The log on standard error has one line of
JSON per request.  SIGTERM and Ctrl+C stop the server after the current requests.

example:
  facecore serve --gallery staff.gallery --keys keys.txt --port 8080
"""


def add_commands(commands: Commands) -> None:
    """Add the command of this module."""
    serve = commands.add("serve", _serve, _SERVE, MODELS)
    serve.add_argument("--gallery", metavar="DIR", required=True, help="created if missing")
    add_key_file(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument(
        "--port", type=int, default=8080, help="port; 0 picks a free one (%(default)s)"
    )
    access = serve.add_mutually_exclusive_group(required=True)
    access.add_argument(
        "--keys", metavar="FILE", type=Path, help="access keys, one per line: id, secret, options"
    )
    access.add_argument(
        "--no-auth", action="store_true", help="accept unsigned requests; loopback only"
    )
    serve.add_argument(
        "--acs3-only", action="store_true", help="refuse the older signature, HMAC-SHA1"
    )
    serve.add_argument(
        "--allow-private-addresses",
        action="store_true",
        help="also fetch pictures from this machine and its network",
    )


def _serve(args: argparse.Namespace) -> Answer:
    # Report invalid options before loading the models.
    from facecore.server.keys import read_keys
    from facecore.server.uvicorn_server import Server, bind

    if args.no_auth and not _is_loopback(args.host):
        raise InvalidParameter(
            f"--no-auth works only on loopback, not on {args.host}",
            "leave out --host, or give access keys with --keys",
        )
    keys = None if args.no_auth else read_keys(args.keys)
    secret = gallery_key(args)
    with bind(args.host, args.port) as sock:
        from facecore.gallery.gallery import Gallery
        from facecore.operations import FaceService, ServiceConfig
        from facecore.server.app import Application
        from facecore.server.warmup import prepare, warm

        _log_lines()
        # Pictures are untrusted: one that crashes a decoder must not stop the server.
        engine = engine_of(args, isolate_decoding=os.name == "posix")
        # Let SIGTERM raise KeyboardInterrupt like Ctrl-C, so that the gallery is closed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with Gallery(args.gallery, engine, key=secret) as gallery:
            config = ServiceConfig(allow_private_addresses=args.allow_private_addresses)
            service = FaceService(engine, gallery, config)
            server = Server(Application(service, keys, acs3_only=args.acs3_only))
            warm(engine)
            prepare(gallery)

            def stop(*_: object) -> None:
                server.should_exit = True

            # uvicorn handles signals only while it runs, and re-raises them at its end.  From here
            # on, they stop the server in order.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, stop)
            server.run([sock])
    count = server.server_state.total_requests
    return {"requests": count}, OK, [f"stopped after {count:,} requests"]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _log_lines() -> None:
    from facecore.server.uvicorn_server import LineFormatter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("facecore.server").setLevel(logging.INFO)
    # Uvicorn logs a warning for every malformed request.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
