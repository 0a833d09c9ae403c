"""Rules and fixtures of the whole suite: the only place where fixtures are registered.

`tests.support.databases` gives databases; each module of `tests.support.servers` named here gives a
server and stops it; `tests.support.builders.source_models` gives models to assemble.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.paths import SAMPLE_DATA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each of the processes that share the cores; read when numpy is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = [
    "tests.support.builders.source_models",
    "tests.support.databases",
    "tests.support.servers.node",
    "tests.support.servers.postgres",
    "tests.support.servers.redis",
    "tests.support.servers.triton",
    "tests.support.servers.validators",
]

INDEPENDENT: Final = (
    "tests/integration/db/",
    "tests/integration/receiver/",
    "tests/integration/worker/test_",
    "tests/system/test_demo.py",
    "tests/system/test_tutorials.py",
)
"""Tests that may run in any process; other modules stay whole, because of their fixtures."""

SHARING: Final = ("tests/conformance/", "tests/system/", "tests/integration/worker/grading/")
"""Tests that stay in one process, because they share one Triton, PixelMed and running node."""


@pytest.fixture(autouse=True)
def umask_as_before() -> Iterator[None]:
    """Undo `core.permissions.keep_files_private` of entry points that a test calls."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Start containers only when asked to, as ``make container-test`` does."""
    is_asked = any("containers" in argument for argument in config.args)
    return True if collection_path.name == "containers" and not is_asked else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the sample data, only where that folder does not exist."""
    if SAMPLE_DATA.is_dir():
        return
    skip = pytest.mark.skip(reason="../shared/sample_data does not exist on this machine")
    for item in items:
        if "sample_data" in item.keywords:
            item.add_marker(skip)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute the tests of a parallel run (``pytest -n 3``) among its processes."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            if path.startswith(INDEPENDENT):
                return nodeid
            return "shared servers" if path.startswith(SHARING) else path

    return Scheduling(config, log)
