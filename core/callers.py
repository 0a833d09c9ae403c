"""Peers by AE title, address and certificate: the entries of allow-lists, and what counts as one.

The form of an entry, in ``EPVS_CALLERS`` and in the option ``reporter=`` of a destination::

    AE@address[?certificate=NAME]
    AE@network/bits[?certificate=NAME]
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.errors import Unavailable
from core.tls import is_certificate_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

AE_TITLE: Final = re.compile(r"[ -\[\]-~]{1,16}")
"""Printable ASCII without backslash (PS3.8 7.1.1.4)."""
_IPV6_SITE_BITS: Final = 64

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class CallerRule:
    """One entry of an allow-list: an AE title (``*`` for any) at an address or network.

    With a `certificate` it admits callers over TLS only, and only with a certificate of that name.
    """

    ae_title: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    certificate: str = ""

    def is_proven_by(self, names: Collection[str]) -> bool:
        """Whether a certificate with these names (lower case) satisfies the entry."""
        return not self.certificate or self.certificate.lower() in names

    def lists(self, ae_title: str, address: str) -> bool:
        """Whether the entry covers a caller with this AE title at this address."""
        return self.ae_title in ("*", ae_title.strip()) and self.contains(address)

    def contains(self, address: str) -> bool:
        """Whether the entry covers any caller at this address."""
        return numeric_address(address) in self.network


def parse_caller(text: str) -> CallerRule:
    """Read ``AE@address`` or ``AE@network/bits``; the AE may be ``*``.

    ``?certificate=NAME`` after it binds the entry to a certificate.

    Raises
    ------
    ValueError
        Says what is wrong and shows the valid form.
    """
    caller, option, certificate = text.strip().partition("?certificate=")
    if option and not is_certificate_name(certificate):
        raise ValueError(f"caller {text!r}: {certificate!r} cannot be a name in a certificate")
    ae_title, _, network = caller.partition("@")
    if ae_title == "*" or AE_TITLE.fullmatch(ae_title):
        with contextlib.suppress(ValueError):
            return CallerRule(ae_title, ipaddress.ip_network(network), certificate)
    raise ValueError(
        f"caller {text!r} is not of the form AE@address or AE@network/bits, "
        "for example PACS@192.0.2.10 or *@192.0.2.0/24 (addresses, not host names), with "
        "?certificate=NAME to admit only that certificate"
    )


def numeric_address(text: str) -> Address:
    """Read a numeric address; an IPv4-mapped IPv6 address, as of a dual-stack socket, is IPv4.

    Raises
    ------
    ValueError
    """
    ip = ipaddress.ip_address(text)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


def source_of(address: str, rules: Iterable[CallerRule] = ()) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 network of an IPv6 address.

    One host can use every address of its /64 network (RFC 4291 section 2.5.4). An address that is
    an entry of `rules` by itself counts alone.
    """
    ip = numeric_address(address)
    is_listed_alone = any(r.network.num_addresses == 1 and ip in r.network for r in rules)
    if isinstance(ip, ipaddress.IPv4Address) or is_listed_alone:
        return str(ip)
    return str(ipaddress.IPv6Network((int(ip), _IPV6_SITE_BITS), strict=False))


def addresses_of(host: str) -> frozenset[Address]:
    """Return the addresses of a host, given by name or by numeric address.

    Raises
    ------
    Unavailable
        The name cannot be resolved now.
    """
    with contextlib.suppress(ValueError):
        return frozenset({numeric_address(host)})
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(
            "name resolution",
            f"The host name {host} of a destination cannot be resolved.",
            "Check EPVS_DESTINATIONS and the name server.",
        ) from error
    return frozenset(numeric_address(str(entry[4][0])) for entry in found)
