"""Until when certificates and revocation lists are valid."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from core.certificates import validities
from core.errors import ConfigurationError
from tests.support.builders.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path


def test_everything_that_can_expire_is_listed(tmp_path: Path) -> None:
    one, two = Authority(tmp_path / "one"), Authority(tmp_path / "two")
    identity = one.issue("node.example")
    kinds = [name.partition(" ")[0] for name, _ in validities(identity)]
    assert kinds == ["certificate", "authority"]
    lists, authorities = tmp_path / "lists.pem", tmp_path / "authorities.pem"
    authorities.write_bytes(one.certificate.read_bytes() + two.certificate.read_bytes())
    made = (
        one.revocation_list(expires_in=timedelta(days=3)),
        two.revocation_list(expires_in=timedelta(days=-3)),
    )
    lists.write_bytes(b"".join(path.read_bytes() for path in made))
    found = validities(replace(identity, authorities=authorities, revocation=lists))
    kinds = [name.partition(" ")[0] for name, _ in found]
    assert kinds == ["certificate", "authority", "authority", "revocation", "revocation"]
    assert "CN=node.example" in found[0].name
    now = datetime.now(UTC)
    assert [until < now for _, until in found] == [False, False, False, False, True]
    assert timedelta(days=2) < found[3].until - now < timedelta(days=4)


def test_a_malformed_file_is_a_clear_error(tmp_path: Path) -> None:
    identity = Authority(tmp_path).issue("node.example")
    identity.authorities.write_text(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    with pytest.raises(ConfigurationError, match="malformed"):
        validities(identity)
