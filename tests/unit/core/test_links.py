"""Words for the protection of a connection."""

from __future__ import annotations

import pytest

from core.links import describe_link


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (None, "on this machine"),
        ("", "on this machine"),
        ("/run/redis.sock", "on this machine"),
        ("localhost", "on this machine"),
        ("127.0.0.1", "on this machine"),
        ("::1", "on this machine"),
        ("[::1]", "on this machine"),
        ("192.0.2.1", "not encrypted"),
        ("localhost.example", "not encrypted"),
        ("redis", "not encrypted"),
    ],
)
def test_only_links_on_this_machine_need_no_encryption(host: str | None, expected: str) -> None:
    assert describe_link(host, is_encrypted=False) == expected
    assert describe_link(host, is_encrypted=True) == "over TLS"
