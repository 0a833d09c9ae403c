"""Recording how an attempt ended, with retries while the database is unavailable."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from core.errors import Unavailable
from db.session import unit_of_work

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

_RETRY_S: Final = 0.5


def record_outcome(engine: Engine, record: Callable[[Session], bool], *, timeout_s: float) -> bool:
    """Run `record` in one transaction; while the database is unavailable, repeat it.

    A result that took minutes to compute is worth waiting for the database, up to the length of
    the lease.

    Parameters
    ----------
    engine : Engine
    record : callable
        Writes the outcome; False if the claim is stale.
    timeout_s : float
        No further repetition after this time.

    Returns
    -------
    bool
        What `record` returned.

    Raises
    ------
    Unavailable
        The database was still unavailable after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with unit_of_work(engine) as session:
                return record(session)
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_S)
