"""Waiting for a schema that another process brings about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from core.errors import Unavailable
from db import migrate
from node.database import wait_for_schema

if TYPE_CHECKING:
    import pytest


def test_it_waits_until_somebody_has_migrated(empty_database_url: str) -> None:
    told: list[str] = []

    def migrate_meanwhile(text: str) -> None:
        told.append(text)
        migrate.upgrade(empty_database_url, "0001" if len(told) == 1 else "head")

    wait_for_schema(empty_database_url, on_wait=migrate_meanwhile, interval_s=0.0)
    head = migrate.head_revision()
    assert told == [
        f"waiting: the database is at revision none, {head} is needed",
        f"waiting: the database is at revision 0001, {head} is needed",
    ]
    assert migrate.current_revision(empty_database_url) == head


def test_it_does_not_wait_on_the_schema_of_a_later_version(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'of-tomorrow'"))
    engine.dispose()
    told: list[str] = []
    wait_for_schema(database_url, on_wait=told.append, interval_s=0.0)
    assert told == []


def test_it_waits_for_a_database_that_does_not_respond(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    responses: list[Unavailable | str] = [
        Unavailable("database", "The database does not respond."),
        migrate.head_revision(),
    ]

    def respond(_: str) -> str:
        response = responses.pop(0)
        if isinstance(response, Unavailable):
            raise response
        return response

    monkeypatch.setattr(migrate, "current_revision", respond)
    told: list[str] = []
    wait_for_schema(database_url, on_wait=told.append, interval_s=0.0)
    assert told == ["waiting: The database does not respond."]
