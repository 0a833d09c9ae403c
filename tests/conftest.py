"""Rules and fixtures of the whole suite: the only place where fixtures are registered.

`tests.support.databases` gives databases; each module of `tests.support.servers` named here gives a
server and stops it.
"""

from __future__ import annotations

import pytest

from tests.support.paths import SAMPLE_DATA

pytest_plugins = [
    "tests.support.databases",
    "tests.support.servers.node",
    "tests.support.servers.postgres",
    "tests.support.servers.redis",
    "tests.support.servers.triton",
    "tests.support.servers.validators",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the sample data, only where that folder does not exist."""
    if SAMPLE_DATA.is_dir():
        return
    skip = pytest.mark.skip(reason="../shared/sample_data does not exist on this machine")
    for item in items:
        if "sample_data" in item.keywords:
            item.add_marker(skip)
