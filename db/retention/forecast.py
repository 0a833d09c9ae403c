"""How fast the data folder grows: what arrived and what was removed over the last days."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from db.clock import current_time
from db.models import Instance, ReportObjectRow, Revision, Study

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

PERIOD: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Growth:
    """Bytes a day, over the last `PERIOD` or since the first study, if that is shorter."""

    images: float
    """Received less removed."""
    reports: float
    days: float
    """Over which this was counted."""


def read_growth(session: Session, *, now: datetime | None = None) -> Growth | None:
    """Read the growth; None before there are studies of a day.

    Parameters
    ----------
    session : Session
    now : datetime, optional
        By default the database's time.
    """
    now = now or current_time(session)
    since = now - PERIOD
    first = session.scalar(select(func.min(Revision.opened_at)))
    if first is None or now - first < timedelta(days=1):
        return None
    days = min(PERIOD, now - first) / timedelta(days=1)
    received = (Instance, Instance.first_revision_id == Revision.id)
    removed = (Instance, Instance.study_uid == Study.study_uid, Instance.removed_at > since)
    report = (ReportObjectRow, ReportObjectRow.revision_id == Revision.id)
    images = _sum(session, *received, where=Revision.opened_at > since) - _sum(
        session, *removed, where=Study.files_removed_at > since
    )
    reports = _sum(session, *report, where=Revision.opened_at > since) - _sum(
        session, *report, where=Revision.report_removed_at > since
    )
    return Growth(images / days, reports / days, days)


def _sum(session: Session, table: Any, *of_owner: Any, where: ColumnElement[bool]) -> float:
    """Sum the bytes, looked up for each owner: a join may read the whole table."""
    sizes = select(func.sum(table.size_bytes)).where(*of_owner).scalar_subquery()
    return float(session.scalar(select(func.sum(sizes)).where(where)) or 0)
