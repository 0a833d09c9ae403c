"""What may be removed: by age, by state, and earlier when the disk fills.

Images and reports are removed only where nothing waits for them any more: every revision of the
study is finished, every delivery is proven or was abandoned by an operator, no quarantined instance
waits for a decision. A failed study waits for a person. A report without any destination is the
only copy and is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import aliased

from db.enums import DeliveryState, Resolution, RevisionState
from db.models import Delivery, Instance, QuarantinedInstance, ReportObjectRow, Revision, Study

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from core.settings import Settings

LEAST_AGE: Final = timedelta(days=1)
"""Images are kept this long after their study is finished, however full the disk is."""
_UNFINISHED: Final = (
    RevisionState.RECEIVING,
    RevisionState.CLOSED,
    RevisionState.QUEUED,
    RevisionState.PROCESSING,
)
_LEFT_OUT: Final = (Resolution.DISCARDED, Resolution.REPLACED)


@dataclass(frozen=True, slots=True)
class Policy:
    """How long each kind is kept; None: for ever."""

    images: timedelta | None
    """After the study was finished."""
    reports: timedelta | None
    """After the report was delivered."""
    quarantine: timedelta | None
    """After it arrived, for what an operator has decided about."""
    details: timedelta | None
    """Stage timings, commitment requests, counts of refusals."""

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """Return the policy that the settings state."""
        return cls(
            *(
                timedelta(days=days) if days else None
                for days in (
                    settings.keep_images_days,
                    settings.keep_reports_days,
                    settings.keep_quarantine_days,
                    settings.keep_details_days,
                )
            )
        )


def studies_with_removable_images(cutoff: datetime) -> Any:
    """Select the studies whose images may be removed, finished by `cutoff`, oldest first."""
    of_study = Revision.study_uid == Study.study_uid
    later = aliased(Revision)
    is_newest = ~(
        select(later.id)
        .where(later.study_uid == Revision.study_uid, later.number > Revision.number)
        .exists()
    )
    waits_for_person = and_(
        Revision.state == RevisionState.FAILED, Revision.abandoned_at.is_(None), is_newest
    )
    is_busy = or_(Revision.state.in_(_UNFINISHED), Revision.state_since > cutoff, waits_for_person)
    # A maximum, not EXISTS, which PostgreSQL would answer by reading every instance that there is.
    newest_file = (
        select(func.max(func.coalesce(Instance.restored_at, Instance.received_at)))
        .where(Instance.study_uid == Study.study_uid, Instance.removed_at.is_(None))
        .scalar_subquery()
    )
    return (
        select(Study.study_uid)
        .where(
            Study.files_removed_at.is_(None),
            Study.first_received_at <= cutoff,
            select(Revision.id).where(of_study).exists(),
            ~select(Revision.id).where(of_study, is_busy).exists(),
            ~select(Delivery.id)
            .join(Revision, Revision.id == Delivery.revision_id)
            .where(of_study, _is_not_done())
            .exists(),
            func.coalesce(newest_file, cutoff) <= cutoff,
            ~select(QuarantinedInstance.id)
            .where(
                QuarantinedInstance.study_uid == Study.study_uid,
                QuarantinedInstance.resolution.is_(None),
            )
            .exists(),
        )
        .order_by(Study.first_received_at, Study.study_uid)
    )


def revisions_with_removable_reports(cutoff: datetime) -> Any:
    """Select (revision ID, Study Instance UID) of reports delivered by `cutoff`, oldest first."""
    of_revision = Delivery.revision_id == Revision.id
    return (
        select(Revision.id, Revision.study_uid)
        .where(
            Revision.report_removed_at.is_(None),
            Revision.state_since <= cutoff,
            select(ReportObjectRow.id).where(ReportObjectRow.revision_id == Revision.id).exists(),
            select(Delivery.id).where(of_revision).exists(),
            ~select(Delivery.id)
            .where(of_revision, or_(_is_not_done(), Delivery.delivered_at > cutoff))
            .exists(),
        )
        .order_by(Revision.state_since, Revision.id)
    )


def removable_quarantine(cutoff: datetime) -> Any:
    """Select instances that an operator left out, received by `cutoff`, oldest first.

    The file of an accepted instance is its study's.
    """
    return (
        select(QuarantinedInstance)
        .where(
            QuarantinedInstance.resolution.in_(_LEFT_OUT),
            QuarantinedInstance.removed_at.is_(None),
            QuarantinedInstance.received_at <= cutoff,
        )
        .order_by(QuarantinedInstance.id)
    )


def _is_not_done() -> ColumnElement[bool]:
    is_abandoned = and_(Delivery.state == DeliveryState.PARKED, Delivery.abandoned_at.is_not(None))
    return ~or_(Delivery.state == DeliveryState.DELIVERED, is_abandoned)
