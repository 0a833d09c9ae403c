"""TLS of the broker is set up from the settings alone."""

from __future__ import annotations

import pytest
from kombu.transport.redis import Channel

from core.settings import load_settings
from worker import broker

TLS = {"tls_certificate": "c.pem", "tls_key": "k.pem", "tls_authorities": "a.pem"}


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:6379/0", "redis+socket:///run/redis.sock", "redis://rediss:6379/0"]
)
def test_without_tls_kombu_is_given_nothing(url: str) -> None:
    assert broker.set_up(load_settings(broker_url=url, **TLS)) is None


def test_over_tls_kombu_is_given_the_identity_of_the_node() -> None:
    settings = load_settings(broker_url="rediss://redis.example:6380/0", **TLS)
    assert broker.set_up(settings) == {"identity": settings.tls_identity}
    assert Channel.connection_class_ssl is broker.TlsConnection
