"""Receiving, second half: instances that are safe on disk become rows.

Any number of associations may record instances of one study at once: the study's row is locked
first, and an instance that another transaction inserted meanwhile is compared, not overwritten.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, cast

from pydicom.uid import EnhancedMRImageStorage, MRImageStorage
from sqlalchemy import bindparam, case, exists, or_, select, update

from db import audit
from db.enums import RevisionState
from db.models import Instance, QuarantinedInstance, ReportObjectRow, Revision, Study
from db.receiving.prepared import Prepared
from db.session import insert_or_ignore, insert_or_ignore_of
from db.states import open_revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Table
    from sqlalchemy.orm import Session

    from core.studies import ReceivedInstance

# Tables, not entities: an ORM statement costs two to three times the CPU, on a path where every
# image of every sender waits for a handful of them.
_studies: Final = cast("Table", Study.__table__)
_instances: Final = cast("Table", Instance.__table__)
_own: Final = cast("Table", ReportObjectRow.__table__)
_revisions: Final = cast("Table", Revision.__table__)

_received_at: Final = bindparam("at", type_=_revisions.c.last_received_at.type)
_KEEP_RECEIVING: Final = Prepared(
    lambda _dialect: (
        update(_revisions)
        .where(
            _revisions.c.study_uid == bindparam("of_study"),
            _revisions.c.state == RevisionState.RECEIVING,
            exists().where(
                _studies.c.study_uid == bindparam("of_study"),
                # Nobody's is anybody's, but the first ID that comes is to become the study's.
                or_(
                    bindparam("of_patient") == "", _studies.c.patient_id == bindparam("of_patient")
                ),
            ),
        )
        .values(
            last_received_at=case(
                (_revisions.c.last_received_at < _received_at, _received_at),
                else_=_revisions.c.last_received_at,
            )
        )
        .returning(_revisions.c.id)
    )
)
"""A study has at most one revision that is receiving, its latest."""
_ADD: Final = Prepared(
    lambda dialect: insert_or_ignore_of(dialect, _instances).returning(
        _instances.c.sop_instance_uid
    ),
    columns=_instances.c.keys(),
)
_NEVER_OURS: Final = frozenset({MRImageStorage, EnhancedMRImageStorage})
"""SOP classes of which this node makes no reports."""


class Intake(StrEnum):
    """What became of a received instance; the sender gets success for each."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """Same SOP Instance UID, same bytes: no new work."""
    OWN = "own"
    """A report of this node that somebody sent back: no new work, or it would go round for ever."""
    CONFLICT = "conflict"
    """Same SOP Instance UID, other bytes: quarantined and audited, never graded."""
    OTHER_PATIENT = "other-patient"
    """Another Patient ID than the study's: quarantined and audited, never graded."""


_QUARANTINED: Final = (Intake.CONFLICT, Intake.OTHER_PATIENT)


def record_instances(session: Session, instances: Sequence[ReceivedInstance]) -> list[Intake]:
    """Register received instances, opening a study or its next revision where needed.

    Parameters
    ----------
    session : Session
    instances : sequence of ReceivedInstance
        Of any studies; the files are durable already.

    Returns
    -------
    list of Intake
        One for each instance, in their order.
    """
    added = add_to_open_revisions(session.connection(), instances)
    rest = [instance for n, instance in enumerate(instances) if n not in added]
    others = iter(_record(session, rest) if rest else ())
    return [Intake.STORED if n in added else next(others) for n in range(len(instances))]


def add_to_open_revisions(
    connection: Connection, instances: Sequence[ReceivedInstance]
) -> set[int]:
    """Insert what is new and of a study that is receiving already; return the places of those.

    Nearly every instance is one of these, and needs no more than two statements. The update locks
    the revision, so that it cannot be closed until the commit: closing passes over locked ones.

    Parameters
    ----------
    connection : Connection
        In a transaction.
    instances : sequence of ReceivedInstance
        As for `record_instances`, which is to record those that are not added.
    """
    first: dict[str, int] = {}
    newest: dict[str, datetime] = {}
    patients: dict[str, set[str]] = {}
    for n, instance in enumerate(instances):
        if instance.sop_class_uid in _NEVER_OURS:
            first.setdefault(instance.sop_instance_uid, n)
            last = newest.get(instance.study_uid, instance.received_at)
            newest[instance.study_uid] = max(last, instance.received_at)
            patients.setdefault(instance.study_uid, set()).add(_storable(instance.patient_id))
    revisions: dict[str, str] = {}
    for study_uid in sorted(newest):  # everyone locks in the same order
        patient, *others = patients[study_uid]
        values = {"of_study": study_uid, "at": newest[study_uid], "of_patient": patient}
        for (revision_id,) in () if others else _KEEP_RECEIVING.rows(connection, values):
            revisions[study_uid] = revision_id
    return {
        n
        for n in first.values()
        if (revision_id := revisions.get(instances[n].study_uid))
        and _ADD.rows(connection, _instance_row(instances[n], revision_id))
    }


def _record(session: Session, instances: Sequence[ReceivedInstance]) -> list[Intake]:
    """Register instances of which nothing is known."""
    own = _read_own(session, instances)
    patients = _lock_studies(session, [i for i in instances if i.sop_instance_uid not in own])
    known = _read_digests(session, (i.sop_instance_uid for i in instances))
    new: dict[str, ReceivedInstance] = {}
    for instance in instances:
        if instance.sop_instance_uid not in known.keys() | own and _is_of(patients, instance):
            new.setdefault(instance.sop_instance_uid, instance)

    latest = _read_latest_revisions(session, {i.study_uid for i in instances})
    inserted = _insert(session, new, latest)
    # What is not inserted was stored meanwhile, by an association that claims another study for it.
    known |= _read_digests(session, new.keys() - inserted)
    known |= {uid: (new[uid].study_uid, new[uid].sha256) for uid in inserted}

    outcomes = []
    for instance in instances:
        uid = instance.sop_instance_uid
        if uid in own:
            outcomes.append(Intake.OWN)
            continue
        if uid in inserted and new[uid] is instance:
            outcomes.append(Intake.STORED)
        elif known.get(uid) == (instance.study_uid, instance.sha256):
            outcomes.append(Intake.DUPLICATE)
        elif not _is_of(patients, instance):
            outcomes.append(Intake.OTHER_PATIENT)
        else:
            outcomes.append(Intake.CONFLICT)
        revision = latest.get(instance.study_uid)
        if revision is not None and revision.state is RevisionState.RECEIVING:
            revision.last_received_at = max(revision.last_received_at, instance.received_at)
    session.flush()
    _quarantine(
        session,
        [(i, o) for i, o in zip(instances, outcomes, strict=True) if o in _QUARANTINED],
        latest,
    )
    return outcomes


def _read_own(session: Session, instances: Sequence[ReceivedInstance]) -> set[str]:
    uids = {i.sop_instance_uid for i in instances if i.sop_class_uid not in _NEVER_OURS}
    if not uids:
        return set()
    found = select(_own.c.sop_instance_uid).where(_own.c.sop_instance_uid.in_(uids))
    return set(session.connection().scalars(found))


def _lock_studies(session: Session, instances: Sequence[ReceivedInstance]) -> dict[str, str]:
    """Lock the studies, opening those that are new; return the Patient ID of each."""
    first = {i.study_uid: i for i in reversed(instances)}
    rows = [
        {
            "study_uid": uid,
            "patient_id": _storable(first[uid].patient_id),
            "accession_number": _storable(first[uid].accession_number),
            "study_date": _storable(first[uid].study_date),
            "first_received_at": first[uid].received_at,
        }
        for uid in sorted(first)  # everyone locks in the same order, so nobody waits in a circle
    ]
    locked = (
        select(_studies.c.study_uid, _studies.c.patient_id)
        .where(_studies.c.study_uid.in_(first))
        .order_by(_studies.c.study_uid)
        .with_for_update(key_share=True)
    )
    connection = session.connection()
    studies = connection.execute(locked).all()
    if len(studies) < len(rows):
        connection.execute(insert_or_ignore(session, _studies), rows)
        studies = connection.execute(locked).all()
    patients: dict[str, str] = {row.study_uid: row.patient_id for row in studies}
    for instance in instances:
        patient_id = _storable(instance.patient_id)
        if patient_id and not patients[instance.study_uid]:
            patients[instance.study_uid] = patient_id
            connection.execute(
                update(_studies)
                .where(_studies.c.study_uid == instance.study_uid)
                .values(patient_id=patient_id)
            )
    return patients


def _is_of(patients: Mapping[str, str], instance: ReceivedInstance) -> bool:
    """Whether nothing says that the instance is of another patient than its study.

    An absent Patient ID says nothing: senders leave it out for emergencies.
    """
    patient_id = _storable(instance.patient_id)
    return not patient_id or patients[instance.study_uid] == patient_id


def _read_digests(session: Session, sop_uids: Iterable[str]) -> dict[str, tuple[str, str]]:
    uids = list(sop_uids)
    if not uids:
        return {}
    columns = _instances.c
    rows = session.connection().execute(
        select(columns.sop_instance_uid, columns.study_uid, columns.sha256).where(
            columns.sop_instance_uid.in_(uids)
        )
    )
    return {uid: (study_uid, sha256) for uid, study_uid, sha256 in rows}


def _read_latest_revisions(session: Session, study_uids: Iterable[str]) -> dict[str, Revision]:
    rows = session.scalars(
        select(Revision)
        .where(Revision.study_uid.in_(study_uids))
        .order_by(Revision.number)
        .execution_options(populate_existing=True)
    )
    return {revision.study_uid: revision for revision in rows}


def _insert(
    session: Session, new: dict[str, ReceivedInstance], latest: dict[str, Revision]
) -> set[str]:
    """Insert new instances; bring `latest` up to date; return the UIDs that went in."""
    if not new:
        return set()
    for instance in new.values():
        revision = latest.get(instance.study_uid)
        if revision is None or revision.state is not RevisionState.RECEIVING:
            latest[instance.study_uid] = open_revision(
                session,
                instance.study_uid,
                revision.number + 1 if revision else 1,
                now=instance.received_at,
                detail={"calling_ae": instance.calling_ae},
            )
    statement = insert_or_ignore(session, _instances).returning(_instances.c.sop_instance_uid)
    rows = [_instance_row(i, latest[i.study_uid].id) for i in new.values()]
    return set(session.connection().scalars(statement, rows))


def _instance_row(instance: ReceivedInstance, revision_id: str) -> dict[str, object]:
    return {
        **_file_row(instance),
        "first_revision_id": revision_id,
        "sop_class_uid": instance.sop_class_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "modality": _storable(instance.modality),
    }


def _file_row(instance: ReceivedInstance) -> dict[str, object]:
    return {
        "sop_instance_uid": instance.sop_instance_uid,
        "study_uid": instance.study_uid,
        "series_uid": instance.series_uid,
        "path": str(instance.path),
        "sha256": instance.sha256,
        "size_bytes": instance.size_bytes,
        "calling_ae": _storable(instance.calling_ae),
        "peer_address": instance.peer_address,
        "received_at": instance.received_at,
    }


def _quarantine(
    session: Session,
    instances: list[tuple[ReceivedInstance, Intake]],
    latest: dict[str, Revision],
) -> None:
    for instance, reason in instances:
        row = {**_file_row(instance), "reason": reason.value}
        statement = insert_or_ignore(session, QuarantinedInstance).values(row)
        if session.scalar(statement.returning(QuarantinedInstance.id)) is None:
            continue  # the same contradiction again: recorded and audited the first time
        revision = latest.get(instance.study_uid)
        audit.append(
            session,
            "instance-quarantined",
            study_uid=instance.study_uid,
            revision_id=revision.id if revision else None,
            detail={
                "reason": reason.value,
                "sop_instance_uid": instance.sop_instance_uid,
                "sha256": instance.sha256,
            },
            now=instance.received_at,
        )


def _storable(text: str) -> str:
    """Text that both databases take: no NUL, nothing that UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
