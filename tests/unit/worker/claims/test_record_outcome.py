"""Recording an outcome survives a short outage of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import Unavailable
from worker.claims import record_outcome as module
from worker.claims.record_outcome import record_outcome

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session


class Write:
    """Raises `Unavailable` `failures` times, then returns `held`."""

    def __init__(self, failures: int, held: bool = True) -> None:
        self.calls = 0
        self._failures = failures
        self._held = held

    def __call__(self, session: Session) -> bool:
        self.calls += 1
        if self.calls <= self._failures:
            raise Unavailable("database", "gone")
        return self._held


@pytest.mark.parametrize("held", [True, False])
def test_an_outcome_is_written_again_until_the_database_responds(
    database_engine: Engine, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.001)
    write = Write(failures=2, held=held)
    assert record_outcome(database_engine, write, timeout_s=60) is held
    assert write.calls == 3


def test_a_long_database_outage_ends_the_attempt(
    database_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.001)
    write = Write(failures=10**9)
    with pytest.raises(Unavailable):
        record_outcome(database_engine, write, timeout_s=0.05)
    assert write.calls > 1
