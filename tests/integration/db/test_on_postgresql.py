"""The database tests of ``tests/unit`` again, on PostgreSQL.

Every test and fixture of those modules is taken over into this one, where `database_kind` is
PostgreSQL. Tests that take no database are not repeated.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

UNIT = ROOT / "tests" / "unit"
FILES = [
    *UNIT.glob("db/**/test_*.py"),
    UNIT / "receiver" / "test_instance_registry.py",
    UNIT / "receiver" / "test_refusals.py",
]


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


def _take_over(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    fixtures = {name for name, value in vars(module).items() if _is_fixture(value)}
    for name, value in vars(module).items():
        if name in fixtures or (name.startswith("test_") and inspect.isfunction(value)):
            assert name not in globals(), f"{name} in {path} is the name of another test or fixture"
            globals()[name] = value


def _is_fixture(value: object) -> bool:
    return isinstance(value, type(database_kind))


for _path in sorted(FILES):
    _take_over(_path)
