"""From the parts of an HTTP request to the answer of an operation; no network here."""

from __future__ import annotations

import ipaddress
import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from facecore.server.forms import merge, read_form
from facecore.server.refusals import Refusal
from facecore.server.signatures import Received, Verifier
from facecore.server.uploads import Uploads, permission, read_upload

__all__ = ["Answer", "Dispatcher", "Service", "refuse"]

VERSIONS = ("2022-08-09", "2019-03-07")
UPLOAD, UPLOAD_VERSION = "AuthorizeFileUpload", "2019-12-19"
BY_GET = ("QueryFaceGroup", "QueryFaceRecord", UPLOAD)
HOST_ID = "facecore"

logger = logging.getLogger(__name__)


class Service(Protocol):
    """What `facecore.operations.FaceService` is to this server."""

    def call(self, name: str, params: Mapping[str, Any], /) -> Any:
        """A response with a status and a body."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client, and into the log.

    Attributes
    ----------
    status : int
    body : bytes
        JSON; XML after an upload alone, as the vendor's clients parse that.
    code : str
        Of the operation, or of the refusal.
    request_id : str
    operation : str
        "" where it is unknown: a name that a client made up is nothing for a log.
    """

    status: int
    body: bytes
    code: str
    request_id: str
    operation: str = ""
    media_type: str = "application/json"


def refuse(refusal: Refusal, operation: str = "") -> Answer:
    """The answer that a refusal is."""
    body = {
        "RequestId": str(uuid.uuid4()).upper(),
        "HostId": HOST_ID,
        "Code": refusal.code,
        "Message": refusal.message,
    }
    data = json.dumps(body).encode()
    return Answer(refusal.status, data, refusal.code, body["RequestId"], operation)


class Dispatcher:
    """Reads, checks and answers requests, one at a time or in many threads.

    Parameters
    ----------
    service : Service
    verifier : Verifier or None
        None where requests carry no signature; such a server is for programs on this machine, so
        that other hosts' names and web pages are refused.
    """

    def __init__(self, service: Service, verifier: Verifier | None) -> None:
        self._service = service
        self._verifier = verifier
        self._uploads = Uploads()

    def answer(self, request: Received, query: bytes, scheme: str = "http") -> Answer:
        """Carry out a request; every failure is an answer too.

        Parameters
        ----------
        request : Received
            Without query and form, which are read here.
        query : bytes
            As it stands in the request.
        scheme : {"http", "https"}
        """
        operation = ""
        try:
            media_type = request.header("content-type").partition(";")[0].strip().lower()
            if media_type == "multipart/form-data" and request.method == "POST":
                return self._upload(request)
            if request.body and media_type not in ("", "application/x-www-form-urlencoded"):
                raise Refusal("UnsupportedMediaType")
            request = Received(
                request.method,
                read_form(query),
                read_form(request.body),
                request.headers,
                request.body,
            )
            if self._verifier is None:
                _check_local(request)
                owner = ""
            else:
                owner = self._verifier.verify(request)
            params: dict[str, Any] = dict(merge([*request.query, *request.form]))
            operation = _operation(request, params)
            if operation == UPLOAD:
                allowed = permission(self._uploads.allow(owner), request.header("host"), scheme)
                return _answer(200, {"RequestId": str(uuid.uuid4()).upper(), **allowed}, operation)
            if address := params.get("FacePictureFile"):
                params["FacePictureFile"] = self._uploads.take(address, owner) or address
            response = self._service.call(operation, params)
            return _answer(response.status, response.body, operation)
        except Refusal as refusal:
            return refuse(refusal, operation)
        except Exception as error:
            # Not its text or its traceback's values: they may hold parts of a request.
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            at = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
            logger.error("%s at %s", type(error).__name__, at)
            return refuse(Refusal("InternalError"), operation)

    def _upload(self, request: Received) -> Answer:
        key, data = read_upload(request.header("content-type"), request.body)
        self._uploads.put(key, data)
        body = b"<?xml version='1.0' encoding='UTF-8'?><PostResponse><Key/></PostResponse>"
        return Answer(201, body, "Success", str(uuid.uuid4()).upper(), "Upload", "application/xml")


def _operation(request: Received, params: Mapping[str, str]) -> str:
    header, name = request.header("x-acs-action"), params.get("Action", "")
    if header and name and header != name:
        raise Refusal("InvalidParameter", "x-acs-action and Action name two operations.")
    operation = header or name
    if not operation:
        raise Refusal("MissingParameter")
    version = request.header("x-acs-version") or params.get("Version", "")
    known = (UPLOAD_VERSION,) if operation == UPLOAD else VERSIONS
    if version and version not in known:
        raise Refusal("NoSuchVersion", f"The version must be {' or '.join(known)}.")
    if request.method != "POST" and operation not in BY_GET:
        raise Refusal("UnsupportedHTTPMethod")
    return operation


def _check_local(request: Received) -> None:
    """Refuse what a browser sends for a page of another origin, or to a name bound anew."""
    host = request.header("host").rpartition("://")[2].rstrip("/")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        local = ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        local = name == "localhost"
    if not local or "origin" in request.headers:
        raise Refusal("Forbidden.CrossOrigin")


def _answer(status: int, body: Mapping[str, Any], operation: str) -> Answer:
    data = json.dumps(body, allow_nan=False).encode()
    code = str(body.get("Code", "Success"))
    known = "" if code == "InvalidAction.NotFound" else operation
    return Answer(status, data, code, str(body.get("RequestId", "")), known)
