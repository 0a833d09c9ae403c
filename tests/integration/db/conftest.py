"""Leaves the tests that need no database to ``tests/unit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests in ``test_on_postgresql.py`` that take no database."""
    repeated = [
        item
        for item in items
        if item.path.name == "test_on_postgresql.py"
        and "database_kind" not in getattr(item, "fixturenames", ())
    ]
    if repeated:
        config.hook.pytest_deselected(items=repeated)
        items[:] = [item for item in items if item not in repeated]
