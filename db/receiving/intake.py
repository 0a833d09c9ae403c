"""Intake of received instances: rows for what is safe on disk, revisions for the studies.

Any number of transactions may record instances of one study at once. Rows are locked, in one order,
before anything is decided by their values, and an instance that another transaction has inserted
in the meantime is compared, not overwritten.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from pydicom.uid import EnhancedMRImageStorage, MRImageStorage
from sqlalchemy import bindparam, case, select, update

from db.enums import QuarantineReason, RevisionState
from db.models import Instance, ReportObjectRow, Revision, Study
from db.receiving import quarantine, restoring
from db.receiving.identity import StudyIdentity, storable
from db.receiving.prepared import Prepared
from db.session import insert_or_ignore, insert_or_ignore_of
from db.states import open_revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Table
    from sqlalchemy.orm import Session

    from core.studies import ReceivedInstance

# Tables, not entities: ORM statements take two to three times the CPU, and every image waits for
# some of these.
_studies: Final = cast("Table", Study.__table__)
_instances: Final = cast("Table", Instance.__table__)
_reports: Final = cast("Table", ReportObjectRow.__table__)
_revisions: Final = cast("Table", Revision.__table__)

_received_at: Final = bindparam("at", type_=_revisions.c.last_received_at.type)
_identity: Final = tuple(_studies.c[name] for name in StudyIdentity._fields)
_KEEP_RECEIVING: Final = Prepared(
    lambda _dialect: (
        update(_revisions)
        .where(
            _revisions.c.study_uid == bindparam("of_study"),
            _revisions.c.state == RevisionState.RECEIVING,
        )
        .values(
            last_received_at=case(
                (_revisions.c.last_received_at < _received_at, _received_at),
                else_=_revisions.c.last_received_at,
            )
        )
        .returning(
            _revisions.c.id,
            _revisions.c.priority,
            *(
                select(column)
                .where(_studies.c.study_uid == bindparam("of_study"))
                .scalar_subquery()
                for column in _identity
            ),
        )
    )
)
"""A study has at most one revision that is receiving, its latest."""
_SET_LATER: Final = frozenset({"last_revision", "removed_at", "restored_at"})
_ADD: Final = Prepared(
    lambda dialect: insert_or_ignore_of(dialect, _instances).returning(
        _instances.c.sop_instance_uid
    ),
    columns=[name for name in _instances.c.keys() if name not in _SET_LATER],  # noqa: SIM118
)
_GRADABLE: Final = frozenset({MRImageStorage, EnhancedMRImageStorage})
"""SOP classes that can be graded; no report of this node has one of them."""


class Intake(StrEnum):
    """Outcome of recording a received instance; all but one are a success for its sender."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """Same SOP Instance UID, same bytes: no new work."""
    REMOVING = "removing"
    """Same bytes as an instance whose file is being removed at this moment: no success, the sender
    has to send it again."""
    OWN = "own"
    """A report of this node that was sent back: no new work, or the study would be graded again
    and again."""
    CONFLICT = QuarantineReason.CONFLICT.value
    """Same SOP Instance UID, other bytes: quarantined and audited."""
    OTHER_PATIENT = QuarantineReason.OTHER_PATIENT.value
    """Another Patient ID than the study's: quarantined and audited."""
    OTHER_ACCESSION = QuarantineReason.OTHER_ACCESSION.value
    """Another Accession Number than the study's: quarantined and audited."""
    NO_PATIENT_ID = QuarantineReason.NO_PATIENT_ID.value
    """No Patient ID, and from another caller: quarantined and audited."""


_QUARANTINED: Final = frozenset(Intake(reason.value) for reason in QuarantineReason)


def record_instances(session: Session, instances: Sequence[ReceivedInstance]) -> list[Intake]:
    """Record received instances, opening a study or its next revision where needed.

    Nearly every instance is new and belongs to a study that is receiving. Those take two statements
    for all of a study; only the others are looked into.

    Parameters
    ----------
    session : Session
        In a transaction, which the caller commits.
    instances : sequence of ReceivedInstance
        Of any studies; their files are durable already.

    Returns
    -------
    list of Intake
        One for each instance, in their order.
    """
    own = _read_own(session, instances)
    outcomes = {n: Intake.OWN for n, i in enumerate(instances) if i.sop_instance_uid in own}
    received = {n: i for n, i in enumerate(instances) if n not in outcomes}
    for n in _add_to_open_revisions(session.connection(), received):
        outcomes[n] = Intake.STORED
        del received[n]
    if received:
        rest = _record_in_detail(session, list(received.values()))
        outcomes.update(zip(received, rest, strict=True))
    return [outcomes[n] for n in range(len(instances))]


def _add_to_open_revisions(
    connection: Connection, instances: Mapping[int, ReceivedInstance]
) -> list[int]:
    """Insert what is new and belongs to a receiving revision; return the keys of those.

    The update locks the revisions, so that none can be closed before the commit: closing passes
    over locked ones.
    """
    newest: dict[str, datetime] = {}
    for instance in instances.values():
        last = newest.get(instance.study_uid, instance.received_at)
        newest[instance.study_uid] = max(last, instance.received_at)
    open_revisions = {
        study_uid: revision
        for study_uid in sorted(newest)  # one order for all transactions, so that none deadlock
        if (revision := _keep_receiving(connection, study_uid, newest[study_uid])) is not None
    }
    first: dict[str, int] = {}
    rows = []
    for n, instance in instances.items():
        revision = open_revisions.get(instance.study_uid)
        is_first = instance.sop_instance_uid not in first
        if revision is not None and is_first and _adds_nothing_else(instance, revision):
            first[instance.sop_instance_uid] = n
            rows.append(_instance_row(instance, revision.id))
    return [first[uid] for uid in _insert(connection, rows)]


class _OpenRevision(NamedTuple):
    """A receiving revision, and whose its study is."""

    id: str
    priority: int
    study: StudyIdentity


def _keep_receiving(
    connection: Connection, study_uid: str, received_at: datetime
) -> _OpenRevision | None:
    """Lock a study's receiving revision and extend its quiet period; None if there is none."""
    values = {"of_study": study_uid, "at": received_at}
    rows = _KEEP_RECEIVING.rows(connection, values)
    if not rows:
        return None
    revision_id, priority, *identity = rows[0]
    return _OpenRevision(revision_id, priority, StudyIdentity(*identity))


def _adds_nothing_else(instance: ReceivedInstance, revision: _OpenRevision) -> bool:
    """Whether an instance belongs to the study, and changes neither its identity nor priority."""
    stated, study = StudyIdentity.of(instance), revision.study
    return (
        study.find_contradiction(stated) is None
        and study.completed(stated) == study
        and instance.priority >= revision.priority
    )


def _record_in_detail(session: Session, instances: Sequence[ReceivedInstance]) -> list[Intake]:
    """Record instances that may be known already, of another patient, or of no receiving study."""
    studies = _lock_studies(session, instances)
    contradictions = [
        studies[i.study_uid].find_contradiction(StudyIdentity.of(i)) for i in instances
    ]
    known = _read_digests(session, (i.sop_instance_uid for i in instances))
    new: dict[str, ReceivedInstance] = {}
    for instance, contradiction in zip(instances, contradictions, strict=True):
        if instance.sop_instance_uid not in known and contradiction is None:
            new.setdefault(instance.sop_instance_uid, instance)

    latest = _read_latest_revisions(session, {i.study_uid for i in instances})
    inserted = _insert_new(session, new, latest)
    # Another transaction has inserted the others in the meantime.
    known |= _read_digests(session, new.keys() - inserted)
    known |= {uid: _Known(new[uid].study_uid, new[uid].sha256) for uid in inserted}

    outcomes = []
    for instance, contradiction in zip(instances, contradictions, strict=True):
        uid = instance.sop_instance_uid
        if uid in inserted and new[uid] is instance:
            outcomes.append(Intake.STORED)
        elif known.get(uid, _UNKNOWN)[:2] == (instance.study_uid, instance.sha256):
            is_there = not known[uid].is_removed or restoring.restore(session, instance)
            outcomes.append(Intake.DUPLICATE if is_there else Intake.REMOVING)
        else:
            outcomes.append(Intake((contradiction or QuarantineReason.CONFLICT).value))
        revision = latest.get(instance.study_uid)
        if revision is not None and revision.state is RevisionState.RECEIVING:
            revision.last_received_at = max(revision.last_received_at, instance.received_at)
            if outcomes[-1] is Intake.STORED:
                revision.priority = min(revision.priority, instance.priority)
    session.flush()
    restoring.note_files(session, {new[uid].study_uid for uid in inserted})
    for instance, outcome in zip(instances, outcomes, strict=True):
        if outcome in _QUARANTINED:
            revision = latest.get(instance.study_uid)
            revision_id = revision.id if revision else None
            row = _file_row(instance)
            quarantine.put(session, instance, row, QuarantineReason(outcome), revision_id)
    return outcomes


def _insert(connection: Connection, rows: Sequence[Mapping[str, object]]) -> set[str]:
    """Insert rows of `instances` whose SOP Instance UID is not known; return the UIDs inserted."""
    return {str(row["sop_instance_uid"]) for row in rows if _ADD.rows(connection, row)}


def _read_own(session: Session, instances: Sequence[ReceivedInstance]) -> set[str]:
    uids = {i.sop_instance_uid for i in instances if i.sop_class_uid not in _GRADABLE}
    if not uids:
        return set()
    found = select(_reports.c.sop_instance_uid).where(_reports.c.sop_instance_uid.in_(uids))
    return set(session.connection().scalars(found))


def _lock_studies(
    session: Session, instances: Sequence[ReceivedInstance]
) -> dict[str, StudyIdentity]:
    """Lock the studies, creating those that are new; return whose each is.

    A study without a Patient ID or Accession Number adopts the first one of an instance that
    belongs to it.
    """
    first = {i.study_uid: i for i in reversed(instances)}
    rows = [
        {
            "study_uid": uid,
            **StudyIdentity.of(first[uid])._asdict(),
            "issuer_of_patient_id": storable(first[uid].issuer_of_patient_id),
            "study_date": storable(first[uid].study_date),
            "first_received_at": first[uid].received_at,
        }
        for uid in sorted(first)  # the same order in every transaction, so that none deadlock
    ]
    locked = (
        select(_studies.c.study_uid, *_identity)
        .where(_studies.c.study_uid.in_(first))
        .order_by(_studies.c.study_uid)
        .with_for_update(key_share=True)
    )
    connection = session.connection()
    studies = connection.execute(locked).all()
    if len(studies) < len(rows):
        connection.execute(insert_or_ignore(session, _studies), rows)
        studies = connection.execute(locked).all()
    identities = {row.study_uid: StudyIdentity(*row[1:]) for row in studies}
    for instance in instances:
        known, stated = identities[instance.study_uid], StudyIdentity.of(instance)
        if known.find_contradiction(stated) is None and known.completed(stated) != known:
            identities[instance.study_uid] = known.completed(stated)
            issuer = {"issuer_of_patient_id": storable(instance.issuer_of_patient_id)}
            connection.execute(
                update(_studies)
                .where(_studies.c.study_uid == instance.study_uid)
                .values(known.completed(stated)._asdict() | ({} if known.patient_id else issuer))
            )
    return identities


class _Known(NamedTuple):
    """Study, SHA-256 and file of an instance that has a row."""

    study_uid: str
    sha256: str
    is_removed: bool = False


_UNKNOWN: Final = _Known("", "")


def _read_digests(session: Session, sop_uids: Iterable[str]) -> dict[str, _Known]:
    uids = list(sop_uids)
    if not uids:
        return {}
    columns = _instances.c
    rows = session.connection().execute(
        select(
            columns.sop_instance_uid, columns.study_uid, columns.sha256, columns.removed_at
        ).where(columns.sop_instance_uid.in_(uids))
    )
    return {
        uid: _Known(study_uid, sha256, removed_at is not None)
        for uid, study_uid, sha256, removed_at in rows
    }


def _read_latest_revisions(session: Session, study_uids: Iterable[str]) -> dict[str, Revision]:
    rows = session.scalars(
        select(Revision)
        .where(Revision.study_uid.in_(study_uids))
        .order_by(Revision.number)
        .execution_options(populate_existing=True)
    )
    return {revision.study_uid: revision for revision in rows}


def _insert_new(
    session: Session, new: dict[str, ReceivedInstance], latest: dict[str, Revision]
) -> set[str]:
    """Insert new instances, opening revisions for them in `latest`; return the UIDs inserted.

    What cannot be graded opens no further revision: it joins the latest one, so that the next one
    contains it.
    """
    rows = []
    for instance in new.values():
        revision = latest.get(instance.study_uid)
        if revision is None or (
            revision.state is not RevisionState.RECEIVING and instance.sop_class_uid in _GRADABLE
        ):
            revision = latest[instance.study_uid] = open_revision(
                session,
                instance.study_uid,
                revision.number + 1 if revision else 1,
                now=instance.received_at,
                detail={"calling_ae": instance.calling_ae},
                priority=instance.priority,
            )
        rows.append(_instance_row(instance, revision.id))
    return _insert(session.connection(), rows)


def _instance_row(instance: ReceivedInstance, revision_id: str) -> dict[str, object]:
    return {**_file_row(instance), "first_revision_id": revision_id}


def _file_row(instance: ReceivedInstance) -> dict[str, object]:
    return {
        "sop_instance_uid": instance.sop_instance_uid,
        "study_uid": instance.study_uid,
        "series_uid": instance.series_uid,
        "sop_class_uid": instance.sop_class_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "modality": storable(instance.modality),
        "path": str(instance.path),
        "sha256": instance.sha256,
        "size_bytes": instance.size_bytes,
        "calling_ae": storable(instance.calling_ae),
        "peer_address": instance.peer_address,
        "received_at": instance.received_at,
    }
