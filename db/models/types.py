"""Column types that both databases share: UTC timestamps, enumerations, JSON objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import DateTime, Dialect, Enum
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from enum import StrEnum


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, aware and in UTC in Python; TIMESTAMPTZ in PostgreSQL, UTC text in SQLite.

    Raises
    ------
    ValueError
        On a naive datetime: its time zone would be a guess.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware to UTC; SQLite keeps the digits only, so they must be UTC's."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a timestamp without time zone cannot be stored")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC, aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


def text_enum(enum: type[StrEnum], name: str) -> Enum:
    """VARCHAR column of the enum's values, kept to them by a CHECK constraint on both dialects."""
    return Enum(
        enum,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [str(member.value) for member in members],
    )


UID_LENGTH: Final = 64
"""PS3.5 section 9.1."""

JsonObject = dict[str, Any]
