"""A lease is extended exactly as long as the attempt runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from core.errors import Unavailable
from worker.claims.heartbeat import Heartbeat

if TYPE_CHECKING:
    from sqlalchemy import Engine

LEASE_S = 0.03


class Extensions:
    """Counts extensions; `results` are their results, then True."""

    def __init__(self, *results: bool | Exception, wanted: int) -> None:
        self.count = 0
        self.reached = threading.Event()
        self._results = list(results)
        self._wanted = wanted

    def __call__(self, session: Any, *, now: Any, lease_s: float) -> bool:
        assert lease_s == LEASE_S
        self.count += 1
        if self.count == self._wanted:
            self.reached.set()
        result = self._results.pop(0) if self._results else True
        if isinstance(result, Exception):
            raise result
        return result


@pytest.mark.parametrize("first", [True, Unavailable("database", "gone")])
def test_the_lease_is_extended_until_the_block_ends(
    database_engine: Engine, first: bool | Exception
) -> None:
    """A short outage of the database does not end the extensions."""
    extend = Extensions(first, wanted=3)
    with Heartbeat(database_engine, extend, LEASE_S):
        assert extend.reached.wait(20)
    ended_at = extend.count
    assert not _heartbeats()
    assert extend.count == ended_at


def test_a_lost_claim_is_not_extended_again(database_engine: Engine) -> None:
    extend = Extensions(False, wanted=1)
    with Heartbeat(database_engine, extend, LEASE_S):
        assert extend.reached.wait(20)
        for thread in _heartbeats():
            thread.join(20)
        assert not _heartbeats()
    assert extend.count == 1


def _heartbeats() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
