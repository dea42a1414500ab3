"""Check the addresses of pictures against server-side request forgery.

The sender of a request chooses the address, and could use this machine to reach the machine's
local network.  Therefore an address is parsed once, strictly.  Every answer of the name service
is checked before a connection is opened, and the connection uses the checked answer.  A redirect
is a new address, and the same checks apply.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

from facecore.errors import AddressRefused, DownloadFailed

__all__ = ["Address", "Deadline", "is_public", "parse", "resolve"]

URL_LENGTH = 8192  # characters; signed addresses of object stores take one or two thousand
PORTS = {"http": 80, "https": 443}

# Networks off the public internet, https://www.iana.org/assignments/iana-ipv4-special-registry.
# The standard library's `is_global` differs between patch releases.
_NOT_PUBLIC_4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; metadata services of some clouds
        "127.0.0.0/8",
        "168.63.129.16/32",  # a public address, on which Azure serves each virtual machine
        "169.254.0.0/16",  # link-local; metadata services of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
]
# All local networks are outside 2000::/3, and so are mapped IPv4 addresses (::ffff:0:0/96) and
# NAT64 (64:ff9b::/96 and 64:ff9b:1::/48).  _NOT_PUBLIC_6 lists the networks inside it to refuse.
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, with Teredo, which embeds IPv4
        "2001:db8::/32",
        "2002::/16",  # 6to4, which embeds IPv4
        "3fff::/20",
    )
]


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of an http(s) address, in ASCII, as sent."""

    scheme: str
    host: str  # lower case; an IPv6 address without brackets
    port: int
    target: str  # path and query

    @property
    def authority(self) -> str:
        """Value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time by which a download must be over.

    Parameters
    ----------
    seconds : float
        Seconds from now.
    """

    seconds: float
    _started: float = field(default_factory=time.monotonic)

    def remaining(self) -> float:
        """Return the seconds that are left, more than 0.

        Raises
        ------
        DownloadFailed
            No time is left.
        """
        left = self._started + self.seconds - time.monotonic()
        if left <= 0:
            raise DownloadFailed(f"the download took more than {self.seconds:g} seconds")
        return left


def parse(url: str) -> Address:
    """Split an address into its parts.

    Stricter than browsers, so that no two parsers read one address differently: credentials,
    white space, backslashes and zones are refused, and an IPv4 address is four decimal numbers.

    Raises
    ------
    AddressRefused
        The address has another form.
    """
    if len(url) > URL_LENGTH:
        raise AddressRefused(f"the address has {len(url)} characters; {URL_LENGTH} are allowed")
    if re.search("[\0- \\\\\x7f\ud800-\udfff]", url):
        raise AddressRefused("the address contains white space, a backslash or a control character")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:  # unmatched brackets, a port that is not a number
        raise AddressRefused(f"the address cannot be read: {error}") from None
    if parts.scheme not in PORTS:
        raise AddressRefused("the address does not begin with http:// or https://")
    if "@" in parts.netloc:
        raise AddressRefused("the address carries credentials", "leave out user and password")
    target = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if not target.startswith("/"):
        raise AddressRefused("the address has no host")
    if parts.query:
        target += "?" + urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
    host = _host(parts.netloc, parts.hostname or "")
    if port == 0:
        raise AddressRefused("the address has port 0")
    return Address(parts.scheme, host, port or PORTS[parts.scheme], target)


def _host(netloc: str, name: str) -> str:
    if "[" in netloc:
        try:
            if not re.fullmatch(r"\[[0-9A-Fa-f:.]+\](:\d*)?", netloc):
                raise ValueError
            return str(ipaddress.IPv6Address(name))
        except ValueError:
            raise AddressRefused("the host in brackets is not an IPv6 address") from None
    try:
        host = name.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        raise AddressRefused("the host is not a valid name") from None
    labels = host.split(".")
    if not host or len(host) > 253 or not all(map(_is_label, labels)):
        raise AddressRefused("the host is missing, or is not a valid name")
    # The C library also reads 2130706433, 127.1 and 0177.0.0.1 as addresses; other parsers do not.
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise AddressRefused("an IPv4 address must be four decimal numbers") from None
    return host


def _is_label(label: str) -> bool:
    # Host names have no underscore, but some object stores' names do.
    return 0 < len(label) <= 63 and all(c.isalnum() or c in "-_" for c in label)


def resolve(host: str, port: int, deadline: Deadline, *, allow_private: bool) -> list[str]:
    """Return every IP address of a host; a connection to each is allowed.

    Raises
    ------
    AddressRefused
        An address is not public, or belongs to this machine or its IPv6 network, and
        `allow_private` is not set.
    DownloadFailed
        The name is unknown, or the name service takes too long.
    """
    found = _lookup(host, port, deadline)
    if not allow_private and not all(is_public(ip) and not _is_near(ip) for ip in found):
        raise AddressRefused(
            "the address leads to a machine that is not on the public internet",
            "send the picture itself, or allow private addresses in the configuration",
        )
    return found


def is_public(ip: str) -> bool:
    """Whether text is an IP address of the public internet that embeds no other address."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    # ISATAP (RFC 5214, 6.1) embeds an IPv4 address behind 0:5efe or 200:5efe, in any network.
    if int(address) >> 32 & 0xFFFFFFFF in (0x00005EFE, 0x02005EFE):
        return False
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def _is_near(ip: str) -> bool:
    """Whether a public address is this machine's, or in an IPv6 network (/64) that it is in."""
    address = ipaddress.ip_address(ip)
    source = _source(ip)
    if address.version == 4:
        # A second address of this machine has the first one as its source.  If Linux binds any
        # address (net.ipv4.ip_nonlocal_bind=1), it also binds 192.0.2.1, which no machine has.
        return source == address or (_can_bind(ip) and not _can_bind("192.0.2.1"))
    return source is not None and int(source) >> 64 == int(address) >> 64


def _source(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the source address of packets from this machine to `ip`; None without a route."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((ip, 9))  # asks the routing table; a datagram socket sends nothing here
            return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    except (OSError, ValueError):  # no route
        return None


def _can_bind(ip: str) -> bool:
    """Whether a socket can be bound to an IPv4 address; usually only to this machine's."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((ip, 0))
            return True
    except OSError:
        return False


def _lookup(host: str, port: int, deadline: Deadline) -> list[str]:
    """Return the name service's answers, in its order.

    The C library's call has no timeout, so it runs in a thread, which may outlive this function.
    The resolver's own timeouts end it.
    """
    answers: list[list[str] | OSError] = []

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.append(list(dict.fromkeys(str(row[4][0]) for row in rows)))
        except OSError as error:
            answers.append(error)
        except UnicodeError:  # a name that the C library does not take
            answers.append([])

    asking = threading.Thread(target=ask, name="facecore-lookup", daemon=True)
    asking.start()
    asking.join(deadline.remaining())
    deadline.remaining()
    if not answers or not answers[0] or isinstance(answers[0], OSError):
        raise DownloadFailed("the host's name is unknown")
    return answers[0]
