"""Rules that hold for the whole suite."""

from __future__ import annotations

import pytest

from tests.support.paths import SAMPLE_DATA

pytest_plugins = ["tests.support.servers.postgres", "tests.support.servers.validators"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the sample data, only where that folder does not exist."""
    if SAMPLE_DATA.is_dir():
        return
    skip = pytest.mark.skip(reason="../shared/sample_data does not exist on this machine")
    for item in items:
        if "sample_data" in item.keywords:
            item.add_marker(skip)
