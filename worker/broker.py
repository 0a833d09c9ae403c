"""Connections to the broker: Redis through kombu, over TLS where the URL says ``rediss://``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis
from kombu.exceptions import OperationalError
from kombu.transport.redis import Channel

from core.errors import ConfigurationError
from core.tls import client_context_to

if TYPE_CHECKING:
    import socket

    from core.settings import Settings
    from core.tls import Identity

UNAVAILABLE: Final = (OperationalError, redis.RedisError, OSError)
"""Errors of a broker that does not respond, or not as a broker. kombu translates those of redis-py
for its first connection only."""
_SCHEME: Final = "rediss://"


class TlsConnection(redis.SSLConnection):
    """A connection to Redis with the node's certificate and the authorities that it trusts.

    kombu verifies no certificate by default, and redis-py trusts every authority of the operating
    system. Here the context is that of the destinations: renewed, and with revocation lists.

    Parameters
    ----------
    identity : Identity
    **options
        As `redis.SSLConnection` takes them.
    """

    def __init__(self, *, identity: Identity, **options: Any) -> None:
        super().__init__(**options)
        self._identity = identity

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> socket.socket:
        try:
            context = client_context_to("broker", self._identity)
        except ConfigurationError as error:  # an outage, like any other reason for no connection
            raise redis.ConnectionError(str(error)) from error
        return context.wrap_socket(sock, server_hostname=self.host)


def set_up(settings: Settings) -> dict[str, Any] | None:
    """Prepare kombu's Redis transport for this process.

    Returns
    -------
    dict or None
        Celery's ``broker_use_ssl``: what `TlsConnection` needs; None without TLS.
    """
    # When the connection is lost, kombu 5.7 tries to restore unacknowledged messages over the same
    # connection, which stops the worker ("Unrecoverable error"). Notifications are repeated anyway.
    Channel.do_restore = False
    Channel.connection_class_ssl = TlsConnection  # type: ignore[assignment]  # inferred too narrowly
    return {"identity": settings.tls_identity} if is_encrypted(settings.broker_url) else None


def is_encrypted(url: str) -> bool:
    """Whether a broker with this URL is reached over TLS."""
    return url.startswith(_SCHEME)
