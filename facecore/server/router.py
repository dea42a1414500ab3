"""Route the parts of an HTTP request to an operation, independently of the network."""

from __future__ import annotations

import ipaddress
import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from xml.sax.saxutils import escape

from facecore.operations.service import error_body
from facecore.server.forms import merge, read_form
from facecore.server.keys import Key
from facecore.server.refusals import Refusal
from facecore.server.signatures import Claim, Head, Verifier
from facecore.server.uploads import Uploads, is_upload, permission, read_upload

__all__ = ["Admitted", "Answer", "Dispatcher", "Service", "refuse"]

VERSIONS = ("2022-08-09", "2019-03-07")
UPLOAD, UPLOAD_VERSION = "AuthorizeFileUpload", "2019-12-19"
BY_GET = ("QueryFaceGroup", "QueryFaceRecord")
XML = "<?xml version='1.0' encoding='UTF-8'?>"

logger = logging.getLogger(__name__)


class Service(Protocol):
    """The part of `facecore.operations.FaceService` that this server uses."""

    def call(
        self, name: str, params: Mapping[str, Any], /, *, groups: frozenset[str] | None = None
    ) -> Any:
        """Return a response with status and body; limit the request to `groups`, if given."""

    def knows(self, name: str) -> bool:
        """Whether there is an operation of this name."""

    def check(self) -> None:
        """Raise a FacecoreError if the gallery cannot be written."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a client, and its fields for the log.

    Attributes
    ----------
    status : int
    body : bytes
        JSON; for an upload XML, which the vendor's clients parse.
    code : str
        Code of the operation, or of the refusal.
    request_id : str
    operation : str
        "" if it is unknown: a name that a client made up does not belong in a log.
    """

    status: int
    body: bytes
    code: str
    request_id: str
    operation: str = ""
    media_type: str = "application/json"


def refuse(refusal: Refusal, operation: str = "", *, as_xml: bool = False) -> Answer:
    """Return the answer that reports a refusal, for an upload as XML."""
    request_id = str(uuid.uuid4()).upper()
    body = error_body(refusal.code, refusal.message, request_id)
    data, media_type = json.dumps(body), "application/json"
    if as_xml:
        fields = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in body.items())
        data, media_type = f"{XML}<Error>{fields}</Error>", "application/xml"
    return Answer(refusal.status, data.encode(), refusal.code, request_id, operation, media_type)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request whose head was accepted.

    Attributes
    ----------
    head : Head
    claim : Claim or None
        None without access keys, and for an upload.
    is_upload : bool
        Whether the body is a multipart form with a file, not a URL-encoded form.
    scheme : {"http", "https"}
    """

    head: Head
    claim: Claim | None
    is_upload: bool
    scheme: str

    @property
    def owner(self) -> str:
        """Id of the access key that the request names; "" if it names none."""
        return self.claim.key.id if self.claim else ""

    @property
    def proven(self) -> str:
        """Id of the access key, if the head alone proves that its holder sent it; otherwise ""."""
        return self.claim.key.id if self.claim and self.claim.body_hash else ""


class Dispatcher:
    """Check and answer requests, one at a time or in many threads.

    Parameters
    ----------
    service : Service
    verifier : Verifier or None
        None if requests carry no signature.  The server is then for programs on this machine:
        it refuses requests from web pages and for other host names.

    Attributes
    ----------
    uploads : Uploads
        Uploaded files that wait for a request.
    """

    def __init__(self, service: Service, verifier: Verifier | None) -> None:
        self._service = service
        self._verifier = verifier
        self.uploads = Uploads()

    def admit(self, head: Head, has_body: bool, scheme: str = "http") -> Admitted:
        """Check a head, before any of the body is read.

        Raises
        ------
        Refusal
            The body has another media type; without access keys, a web page sent the request or
            it names another host; the signature, or a field that it needs, is missing or wrong;
            no upload is expected.
        """
        media_type = head.header("content-type").partition(";")[0].strip().lower()
        upload = is_upload(head.method, media_type)
        if has_body and not (upload or media_type in ("", "application/x-www-form-urlencoded")):
            raise Refusal("UnsupportedMediaType")
        if self._verifier is None:
            _check_local(head)
        if upload and not self.uploads.expects():
            raise Refusal("InvalidParameter", "No upload is expected.")
        claim = None if upload or self._verifier is None else self._verifier.admit(head)
        return Admitted(head, claim, upload, scheme)

    def answer(self, request: Admitted, bodies: list[bytes | bytearray]) -> Answer:
        """Carry out a request; return an answer for every failure too.

        Parameters
        ----------
        request : Admitted
        bodies : list of bytes
            The body.  It is removed from the list, so that its memory is freed after reading.
        """
        operation = ""
        try:
            if request.is_upload:
                return self._upload(request.head, bodies.pop())
            key, fields = self._read(request, bodies.pop())
            params: dict[str, Any] = dict(merge(fields))
            del fields
            name = _operation(request.head, params, has_keys=self._verifier is not None)
            if name != UPLOAD and not self._service.knows(name):
                raise Refusal("InvalidAction.NotFound")
            operation = name
            groups = None
            if key is not None:
                _check_role(key, operation)
                groups = key.groups
            if operation == UPLOAD:
                allowed = permission(
                    self.uploads.allow(request.owner), request.head.header("host"), request.scheme
                )
                return _answer(200, {"RequestId": str(uuid.uuid4()).upper(), **allowed}, operation)
            if address := params.get("FacePictureFile"):
                params["FacePictureFile"] = self.uploads.take(address, request.owner) or address
            response = self._service.call(operation, params, groups=groups)
            return _answer(response.status, response.body, operation)
        except Refusal as refusal:
            return refuse(refusal, operation, as_xml=request.is_upload)
        except Exception as error:
            # Log neither its text nor traceback values: they may hold parts of a request.
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            at = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
            logger.error("%s at %s", type(error).__name__, at)
            return refuse(Refusal("InternalError"), operation, as_xml=request.is_upload)

    def _read(
        self, request: Admitted, body: bytes | bytearray
    ) -> tuple[Key | None, list[tuple[str, str]]]:
        """Return the key that signed a request, and the request's parameters."""
        key = None
        if self._verifier is not None and request.claim is not None:
            key = self._verifier.accept(request.claim, request.head, body)
        return key, [*request.head.query, *read_form(body)]

    def _upload(self, head: Head, body: bytes | bytearray) -> Answer:
        key, data = read_upload(head.header("content-type"), body)
        self.uploads.put(key, data)
        xml = f"{XML}<PostResponse><Key/></PostResponse>".encode()
        return Answer(201, xml, "Success", str(uuid.uuid4()).upper(), "Upload", "application/xml")


def _operation(head: Head, params: Mapping[str, str], has_keys: bool) -> str:
    header, name = head.header("x-acs-action"), params.get("Action", "")
    if header and name and header != name:
        raise Refusal("InvalidParameter", "x-acs-action and Action name different operations.")
    operation = header or name
    if not operation:
        raise Refusal("MissingParameter")
    version = head.header("x-acs-version") or params.get("Version", "")
    known = (UPLOAD_VERSION,) if operation == UPLOAD else VERSIONS
    if version and version not in known:
        raise Refusal("NoSuchVersion", f"The version must be {' or '.join(known)}.")
    # The vendor's client requests an upload by GET.  An image tag of any web page can do the same,
    # and only a signature distinguishes the two.
    by_get = operation in BY_GET or (operation == UPLOAD and has_keys)
    if head.method != "POST" and not by_get:
        raise Refusal("UnsupportedHTTPMethod")
    return operation


def _check_role(key: Key, operation: str) -> None:
    if not key.allows("AddFaceRecord" if operation == UPLOAD else operation):
        compares = operation == "CompareFaces"
        raise Refusal("Error.NoPermissionAccess" if compares else "Forbidden.RAMUserAccessDenied")


def _check_local(head: Head) -> None:
    """Refuse requests from web pages and for other host names."""
    host = head.header("host").rpartition("://")[2].rstrip("/").lower()
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        local = ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        local = name.removesuffix(".") == "localhost"
    # Browsers state the page's site in every request to this machine; "none" is a typed address.
    site = head.headers.get("sec-fetch-site", ["none"])
    if not local or "origin" in head.headers or site != ["none"]:
        raise Refusal("Forbidden.CrossOrigin")


def _answer(status: int, body: Mapping[str, Any], operation: str) -> Answer:
    data = json.dumps(body, allow_nan=False).encode()
    code = str(body.get("Code", "Success"))
    return Answer(status, data, code, str(body.get("RequestId", "")), operation)
