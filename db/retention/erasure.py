"""Erasing one patient: every row and file of the studies, in one transaction.

The audit trail is a chain and stays: it names studies and instances by UID, and has the grade, but
no patient. What remains is listed in ``docs/security.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import delete, or_, select

from core.errors import EpvsError
from core.uids import digest
from db import audit
from db.enums import DeliveryState, RevisionState
from db.models import (
    CommitmentRequest,
    Delivery,
    DeliveryObject,
    GradeRow,
    ImageRatingRow,
    Instance,
    OutboxRow,
    QuarantinedInstance,
    ReportObjectRow,
    Revision,
    SeriesVerdictRow,
    ShadowGrade,
    ShadowImageRating,
    StageTimingRow,
    Study,
)
from db.retention.removals import Amount, list_for_removal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

_BUSY: Final = (RevisionState.RECEIVING, RevisionState.PROCESSING)


@dataclass(frozen=True, slots=True)
class Erasable:
    """What is to be erased: whole studies, and the patient's instances in quarantine elsewhere."""

    study_uids: tuple[str, ...]
    quarantined_in: tuple[str, ...]
    """Studies of somebody else, in whose quarantine instances of the patient are."""


def find(
    session: Session,
    *,
    patient_id: str = "",
    issuer: str | None = None,
    study_uid: str | None = None,
) -> Erasable:
    """Find what belongs to a patient, or one study.

    Parameters
    ----------
    session : Session
    patient_id : str
    issuer : str, optional
        Issuer of Patient ID; empty: that of instances which state none.
    study_uid : str, optional
        In place of a patient.

    Raises
    ------
    EpvsError
        Nothing is known of it, or Patient IDs of several issuers are the same and none was named.
    """
    if study_uid is not None:
        found = Erasable(tuple(session.scalars(_studies(Study.study_uid == study_uid))), ())
    else:
        issuers = sorted(
            set(session.scalars(_issuers(Study, patient_id)))
            | set(session.scalars(_issuers(QuarantinedInstance, patient_id)))
        )
        if issuer is None and len(issuers) > 1:
            named = ", ".join(repr(each) for each in issuers)
            raise EpvsError(
                f"Several issuers have given this Patient ID: {named}.",
                "Choose one with --issuer; '' is that of instances which state none.",
            )
        studies = tuple(session.scalars(_studies(*_is_of(Study, patient_id, issuer))))
        elsewhere = session.scalars(
            select(QuarantinedInstance.study_uid)
            .where(
                *_is_of(QuarantinedInstance, patient_id, issuer),
                QuarantinedInstance.study_uid.not_in(studies),
            )
            .distinct()
            .order_by(QuarantinedInstance.study_uid)
        )
        found = Erasable(studies, tuple(elsewhere))
    if not (found.study_uids or found.quarantined_in):
        raise EpvsError("No study here belongs to it.", "'epvs-node studies' lists those known.")
    return found


def require_privilege(session: Session) -> None:
    """Check that the database's role may delete rows, as on PostgreSQL only the owner may.

    Raises
    ------
    EpvsError
        It may not.
    """
    if session.get_bind().dialect.name != "postgresql":
        # Overwrites what is deleted; by default it would stay in free pages of the file.
        session.connection().exec_driver_sql("PRAGMA secure_delete=ON")
        return
    if not session.scalar(sa.text("SELECT has_table_privilege('studies', 'DELETE')")):
        raise EpvsError(
            "The role of EPVS_DATABASE_URL may not delete studies.",
            "Set EPVS_DATABASE_OWNER_URL, the owner of the tables.",
        )


def erase_study(session: Session, study_uid: str, *, operator: str, now: datetime) -> Amount:
    """Delete all rows of a study, and set its files to be removed.

    Deliveries that wait are not made. Instances that arrive later are those of a new study.

    Raises
    ------
    EpvsError
        The study is being received, graded or sent.
    """
    revisions = session.scalars(
        select(Revision)
        .where(Revision.study_uid == study_uid)
        .order_by(Revision.number)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    ids = [revision.id for revision in revisions]
    deliveries = session.scalars(
        select(Delivery)
        .where(Delivery.revision_id.in_(ids))
        .order_by(Delivery.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    session.scalar(_studies(Study.study_uid == study_uid).with_for_update())
    busy = [revision.state.value for revision in revisions if revision.state in _BUSY]
    busy += [each.state.value for each in deliveries if each.state is DeliveryState.SENDING]
    if busy:
        raise EpvsError(f"Study {study_uid} is {busy[0]}.", "Wait, then try again.")
    files: list[tuple[str, int]] = []
    for table, where in (
        (Instance, Instance.study_uid == study_uid),
        (QuarantinedInstance, QuarantinedInstance.study_uid == study_uid),
        (ReportObjectRow, ReportObjectRow.revision_id.in_(ids)),
    ):
        files += list_for_removal(session, table, study_uid, now, where)
    _delete_rows(session, study_uid, ids, [delivery.id for delivery in deliveries])
    return _record(session, "study-erased", study_uid, files, operator, now)


def erase_quarantined(
    session: Session,
    study_uid: str,
    patient_id: str,
    *,
    issuer: str | None = None,
    operator: str,
    now: datetime,
) -> Amount:
    """Delete a patient's instances from the quarantine of somebody else's study."""
    chosen = (
        QuarantinedInstance.study_uid == study_uid,
        *_is_of(QuarantinedInstance, patient_id, issuer),
    )
    session.scalar(_studies(Study.study_uid == study_uid).with_for_update(key_share=True))
    files = list_for_removal(session, QuarantinedInstance, study_uid, now, *chosen)
    session.connection().execute(delete(QuarantinedInstance).where(*chosen))
    return _record(session, "quarantine-erased", study_uid, files, operator, now)


def checkpoint(engine: Engine) -> None:
    """Empty SQLite's write-ahead log, which has the deleted rows until it is written over."""
    if engine.dialect.name != "sqlite":
        return
    connection: Any = engine.raw_connection()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _studies(*where: Any) -> Any:
    return select(Study.study_uid).where(*where).order_by(Study.study_uid)


def _is_of(table: Any, patient_id: str, issuer: str | None) -> tuple[Any, ...]:
    is_patient = table.patient_id == patient_id
    return (is_patient,) if issuer is None else (is_patient, table.issuer_of_patient_id == issuer)


def _issuers(table: Any, patient_id: str) -> Any:
    return select(table.issuer_of_patient_id).where(table.patient_id == patient_id).distinct()


def _delete_rows(
    session: Session, study_uid: str, revisions: Sequence[str], deliveries: Sequence[str]
) -> None:
    session.flush()
    session.expunge_all()  # nothing of what is deleted may be written again
    waiting = or_(OutboxRow.revision_id.in_(revisions), OutboxRow.delivery_id.in_(deliveries))
    steps: tuple[tuple[Any, Any], ...] = (
        (OutboxRow, waiting),
        (CommitmentRequest, CommitmentRequest.delivery_id.in_(deliveries)),
        (DeliveryObject, DeliveryObject.delivery_id.in_(deliveries)),
        (Delivery, Delivery.id.in_(deliveries)),
        *(
            (table, table.revision_id.in_(revisions))
            for table in (
                *(ReportObjectRow, ImageRatingRow, GradeRow, SeriesVerdictRow, StageTimingRow),
                *(ShadowImageRating, ShadowGrade),
            )
        ),
        *(
            (table, table.study_uid == study_uid)
            for table in (Instance, QuarantinedInstance, Revision, Study)
        ),
    )
    for table, where in steps:
        session.connection().execute(delete(table).where(where))


def _record(
    session: Session,
    event: str,
    study_uid: str,
    files: Sequence[tuple[str, int]],
    operator: str,
    now: datetime,
) -> Amount:
    amount = Amount(len(files), sum(size for _, size in files))
    detail = {
        "operator": operator,
        "files": amount.files,
        "bytes": amount.size_bytes,
        "sha256": digest({"files": sorted(sha256 for sha256, _ in files)}),
    }
    audit.append(session, event, study_uid=study_uid, detail=detail, now=now)
    return amount
