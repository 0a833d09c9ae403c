"""The declarative base, and columns that several tables share."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, MetaData, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.models.types import UID_LENGTH, UtcDateTime


class Base(DeclarativeBase):
    """Declarative base; its naming convention lets migrations address every constraint."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, str: Text}  # noqa: RUF012 - SQLAlchemy's interface


def uid_column(comment: str, *args: Any, **options: Any) -> Mapped[str]:
    """Column of a DICOM UID."""
    return mapped_column(String(UID_LENGTH), *args, comment=comment, **options)


def revision_key(comment: str = "Revision that this belongs to", **options: Any) -> Mapped[str]:
    """Foreign key to a study revision."""
    return mapped_column(String(32), ForeignKey("revisions.id"), comment=comment, **options)


def text_column(comment: str) -> Mapped[str]:
    """Column of text of any length."""
    return mapped_column(Text, comment=comment)


def removed_column() -> Mapped[datetime | None]:
    """Column of the time since which the file of a row is gone."""
    return mapped_column(comment="When its file was removed, or set to be; NULL: it is there")


def added_text_column(comment: str) -> Mapped[str]:
    """Column of text that a migration added: empty in the rows from before."""
    return mapped_column(Text, server_default=text("''"), comment=comment)
