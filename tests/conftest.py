"""Rules and fixtures of the whole suite: the only place where fixtures are registered.

`tests.support.databases` gives databases; each module of `tests.support.servers` named here gives a
server and stops it.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.support.paths import SAMPLE_DATA

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each of the processes that share the cores; read when numpy is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = [
    "tests.support.databases",
    "tests.support.servers.node",
    "tests.support.servers.postgres",
    "tests.support.servers.redis",
    "tests.support.servers.triton",
    "tests.support.servers.validators",
]

SHARED_SERVERS: Final = {"node", "pixelmed", "triton_server"}
"""Fixtures that are made once for the whole run; tests that use them share one process."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs the sample data where there is none; group tests for parallel runs."""
    skip = pytest.mark.skip(reason="../shared/sample_data does not exist on this machine")
    groups = _groups(items) if config.pluginmanager.hasplugin("xdist") else {}
    for item in items:
        if "sample_data" in item.keywords and not SAMPLE_DATA.is_dir():
            item.add_marker(skip)
        if group := groups.get(item.nodeid):
            item.add_marker(pytest.mark.xdist_group(group))


def _groups(items: list[pytest.Item]) -> dict[str, str]:
    """Name of the group of each test that must share a process with others.

    Modules with fixtures of their own stay together, and all that use a shared server. Every other
    test may run in any process.
    """
    groups: dict[str, str] = {}
    for item in items:
        for name, found in getattr(item, "_fixtureinfo").name2fixturedefs.items():  # noqa: B009
            scope, module = found[-1].scope, item.nodeid.partition("::")[0]
            if scope == "session" and name in SHARED_SERVERS:
                groups[module] = "servers"
            elif scope == "module" and found[-1].baseid == module:
                groups.setdefault(module, module)
    return {item.nodeid: groups.get(item.nodeid.partition("::")[0], "") for item in items}
