"""The configured database, for commands of the operator."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.errors import EpvsError, Unavailable
from core.settings import load_settings
from db import migrate
from db.session import create_engine, unit_of_work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session


@contextmanager
def open_database(*, read_only: bool = False) -> Iterator[Session]:
    """Open one transaction on the configured database and close its connections afterwards.

    Raises
    ------
    EpvsError
        The database does not have the latest schema.
    """
    url = load_settings().database_url
    require_schema(url)
    engine = create_engine(url)
    try:
        with unit_of_work(engine, read_only=read_only) as session:
            yield session
    finally:
        engine.dispose()


def require_schema(url: str) -> None:
    """Check that a database has the schema of this version.

    Raises
    ------
    EpvsError
        It does not.
    """
    if migrate.current_revision(url) != migrate.head_revision():
        raise EpvsError(
            "The database does not have the latest schema.",
            "Run epvs-node migrate; epvs-node up also does it.",
        )


def wait_for_schema(url: str, *, on_wait: Callable[[str], None], interval_s: float = 2.0) -> None:
    """Wait, without end, until the database has the latest schema, or that of a later version.

    Migrations only add, so an earlier version works on a later schema: while an upgrade replaces
    its processes one by one, and after going back.

    Parameters
    ----------
    url : str
    on_wait : callable
        Called with a line of text whenever the reason to wait changes.
    interval_s : float
        Time between two looks at the database.
    """
    head, told = migrate.head_revision(), ""
    while True:
        try:
            current = migrate.current_revision(url)
            reason = f"the database is at revision {current or 'none'}, {head} is needed"
        except Unavailable as error:
            current, reason = None, str(error)
        if current is not None and (current == head or migrate.is_newer(current)):
            return
        if reason != told:
            on_wait(f"waiting: {reason}")
            told = reason
        time.sleep(interval_s)
