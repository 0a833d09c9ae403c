"""Column types for both databases: UTC timestamps, enumerations, JSON objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import DateTime, Dialect, Enum, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

if TYPE_CHECKING:
    from enum import StrEnum


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; TIMESTAMPTZ in PostgreSQL, text in UTC in SQLite.

    Raises
    ------
    ValueError
        On a naive datetime, whose time zone is unknown.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; SQLite stores no time zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a timestamp without time zone cannot be stored")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware datetime in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


def text_enum(enum: type[StrEnum], name: str) -> Enum:
    """VARCHAR column of the enum's values, with a CHECK constraint on both dialects."""
    return Enum(
        enum,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [str(member.value) for member in members],
    )


class StoredEnum(TypeDecorator["StrEnum"]):
    """Text column whose values are members of an enum in Python; SQL does not check them.

    Parameters
    ----------
    enum : type of StrEnum
    length : int, optional
        Of a VARCHAR column; TEXT without it.
    """

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = Text
    cache_ok = True

    def __init__(self, enum: type[StrEnum], length: int | None = None) -> None:
        super().__init__()
        self.enum = enum
        self.impl = Text() if length is None else String(length)

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Store the value of the member."""
        return None if value is None else self.enum(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:  # noqa: ARG002
        """Return the member with the stored value."""
        return None if value is None else self.enum(value)


UID_LENGTH: Final = 64
"""PS3.5 section 9.1."""

JsonObject = dict[str, Any]
