"""Integration tests: several components together, with real servers and processes.

Those that take a database run once on SQLite and once on PostgreSQL.
"""

from __future__ import annotations

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """``sqlite``, then ``postgresql``."""
    return str(request.param)
