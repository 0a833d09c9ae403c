"""Table of the files that are set to be removed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, text_column, uid_column


class FileRemoval(Base):
    """One file to remove; the row exists until the file is gone."""

    __tablename__ = "file_removals"
    __table_args__ = (
        UniqueConstraint("path"),
        Index(None, "study_uid"),
        Index(None, "attempts", "id"),
        {"comment": "Files whose removal is decided and not done yet"},
    )

    id: Mapped[int] = mapped_column(primary_key=True, comment="Number of the row")
    # No foreign key: the rows of an erased study are gone before its files.
    study_uid: Mapped[str] = uid_column("Study that the file belonged to")
    path: Mapped[str] = text_column("File")
    size_bytes: Mapped[int] = mapped_column(BigInteger, comment="Size of the file")
    decided_at: Mapped[datetime] = mapped_column(comment="When the removal was decided")
    attempts: Mapped[int] = mapped_column(default=0, comment="Attempts that failed")
