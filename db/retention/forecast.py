"""How fast the data folder grows: what arrived and what was removed over the last days."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from db.clock import current_time
from db.models import Instance, ReportObjectRow, Revision, Study

if TYPE_CHECKING:
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


def read_growth(session: Session) -> Growth | None:
    """Read the growth; None before there are studies of a day."""
    now = current_time(session)
    since = now - PERIOD
    first = session.scalar(select(func.min(Revision.opened_at)))
    if first is None or now - first < timedelta(days=1):
        return None
    days = min(PERIOD, now - first) / timedelta(days=1)
    received = _sum(
        session,
        select(func.sum(Instance.size_bytes))
        .join(Revision, Revision.id == Instance.first_revision_id)
        .where(Revision.opened_at > since),
    )
    removed = _sum(
        session,
        select(func.sum(Instance.size_bytes))
        .join(Study, Study.study_uid == Instance.study_uid)
        .where(Study.files_removed_at > since, Instance.removed_at > since),
    )
    made = _sum(
        session,
        select(func.sum(ReportObjectRow.size_bytes))
        .join(Revision, Revision.id == ReportObjectRow.revision_id)
        .where(Revision.opened_at > since),
    )
    gone = _sum(
        session,
        select(func.sum(ReportObjectRow.size_bytes))
        .join(Revision, Revision.id == ReportObjectRow.revision_id)
        .where(Revision.report_removed_at > since),
    )
    return Growth((received - removed) / days, (made - gone) / days, days)


def _sum(session: Session, statement: Any) -> float:
    return float(session.scalar(statement) or 0)
