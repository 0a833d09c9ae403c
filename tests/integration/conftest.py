"""Integration tests that take a database run once on SQLite and once on PostgreSQL."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Both kinds, one after the other."""
    return str(request.param)
