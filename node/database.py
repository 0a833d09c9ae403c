"""The configured database, for commands of the operator."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.errors import EpvsError
from core.settings import load_settings
from db import migrate
from db.session import create_engine, unit_of_work

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    if migrate.current_revision(url) != migrate.head_revision():
        raise EpvsError(
            "The database does not have the latest schema.",
            "Run epvs-node migrate; epvs-node up also does it.",
        )
    engine = create_engine(url)
    try:
        with unit_of_work(engine, read_only=read_only) as session:
            yield session
    finally:
        engine.dispose()
