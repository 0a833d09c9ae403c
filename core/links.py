"""Connections to neighbours: whether a URL can be read, and how well a connection is protected."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def describe_link(host: str | None, *, is_encrypted: bool) -> str:
    """Return whether a connection is encrypted, or need not be.

    Parameters
    ----------
    host : str or None
        Name or address of the server; None or empty for a Unix socket.
    is_encrypted : bool
        Whether the connection uses TLS.
    """
    if is_encrypted:
        return "over TLS"
    return "on this machine" if _is_local(host) else "not encrypted"


def _is_local(host: str | None) -> bool:
    if not host or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name, or the path of a Unix socket
        return host.startswith("/")


def require_readable_url(url: str) -> None:
    """Refuse what libraries would take apart differently, and quote a part of in their errors.

    Raises
    ------
    ValueError
        Without any part of the URL.
    """
    try:
        parts = urlsplit(url)
        is_readable = parts.port != 0 and parts.netloc.count("@") <= 1
    except ValueError:
        is_readable = False
    if not is_readable:
        raise ValueError(
            "cannot be read: special characters in a password must be percent-encoded (%40 for @)"
        )
