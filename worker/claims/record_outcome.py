"""The end of an attempt: writes its outcome, waiting out a short absence of the database."""

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


def persist(engine: Engine, write: Callable[[Session], bool], *, patience_s: float) -> bool:
    """Run `write` in one transaction; while the database is away, again for `patience_s`.

    A result that took minutes of computing is worth some waiting; after that the lease ends the
    attempt.

    Returns
    -------
    bool
        What `write` returned: False where its claim was stale.

    Raises
    ------
    Unavailable
        The database stayed away.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with unit_of_work(engine) as session:
                return write(session)
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_S)
