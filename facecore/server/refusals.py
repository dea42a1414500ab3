"""Codes of the server, for requests that reach no operation.

Names and statuses match those of the vendor's gateways, where these define them.
docs/serving.md lists all codes.
"""

from __future__ import annotations

__all__ = ["REFUSALS", "Refusal"]

REFUSALS: dict[str, tuple[int, str]] = {
    # Form
    "InvalidRequest": (400, "This is not a well-formed HTTP request."),
    "InvalidParameter": (400, "The query or the form cannot be read."),
    "MissingParameter": (400, "The operation is missing: header x-acs-action, or Action."),
    "NoSuchVersion": (400, "This server does not support the version."),
    "InvalidApi.NotFound": (404, "There is nothing at this path."),
    "InvalidAction.NotFound": (404, "There is no such operation."),
    "UnsupportedHTTPMethod": (405, "The operation does not allow this HTTP method."),
    "RequestTimeout": (408, "The request did not arrive in time."),
    "LengthRequired": (411, "A body needs a Content-Length; Transfer-Encoding is not supported."),
    "RequestTooLarge": (413, "The request is too large."),
    "UnsupportedMediaType": (415, "The body is not a form."),
    # Signatures
    "IncompleteSignature": (400, "The request has no signature, or an incomplete one."),
    "InvalidSignatureMethod": (400, "The signature is neither ACS3-HMAC-SHA256 nor HMAC-SHA1."),
    "InvalidAccessKeyId.NotFound": (404, "There is no such access key."),
    "InvalidAccessKeyId.Inactive": (400, "The access key has expired."),
    "InvalidTimeStamp.Format": (400, "The time stamp is not of the form 2026-01-31T12:00:00Z."),
    "InvalidTimeStamp.Expired": (400, "The time stamp is not within 15 minutes of this clock."),
    "SignatureDoesNotMatch": (400, "The signature does not match the request and the secret."),
    "SignatureNonceUsed": (400, "A request with this nonce has been answered already."),
    # Access
    "Forbidden.CrossOrigin": (403, "A web page sent the request, or it names another host."),
    "Forbidden.RAMUserAccessDenied": (403, "The access key may not call this operation."),
    "Error.NoPermissionAccess": (403, "The access key may not call this operation."),
    # Load
    "Throttling.Api": (403, "The server is busy."),
    "InternalError": (500, "The request could not be processed."),
    "ServiceUnavailable": (503, "The server is stopping."),
}
"""Code -> HTTP status and message."""


class Refusal(Exception):
    """The server refuses a request before any operation sees it.

    Parameters
    ----------
    code : str
        One of `REFUSALS`.
    message : str, optional
        By default, the code's message.
    """

    def __init__(self, code: str, message: str = "") -> None:
        self.code = code
        self.status, default = REFUSALS[code]
        self.message = message or default
        super().__init__(f"{code}: {self.message}")
