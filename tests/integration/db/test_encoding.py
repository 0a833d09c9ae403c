"""A database that a cluster without a locale creates: SQL_ASCII stores any bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import ConfigurationError
from db import migrate

if TYPE_CHECKING:
    from tests.support.servers.postgres import PostgresServer


def test_a_database_without_an_encoding_is_refused(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database("template0", "ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        with pytest.raises(ConfigurationError, match="SQL_ASCII") as refused:
            migrate.upgrade(postgres_server.owner_url(name))
        assert "ENCODING 'UTF8'" in refused.value.remedy
    finally:
        postgres_server.drop_database(name)
