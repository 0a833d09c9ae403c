"""How well a connection to a neighbour is protected, in words for ``epvs-node doctor``."""

from __future__ import annotations

import ipaddress


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
