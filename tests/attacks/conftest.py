"""Certificates of the node and of the neighbours that it is linked to over TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.builders.certificates import Authority
from tests.support.servers.postgres import CLIENT_NAME

if TYPE_CHECKING:
    from core.tls import Identity


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Identity:
    """The node's identity; libpq wants its key to be unreadable for others."""
    identity = authority.issue(CLIENT_NAME)
    identity.key.chmod(0o600)
    return identity


@pytest.fixture(scope="module")
def server_identity(authority: Authority) -> Identity:
    """Certificate of a neighbour that is reached as ``localhost``."""
    return authority.issue("localhost")
