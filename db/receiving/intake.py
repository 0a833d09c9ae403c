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

from db import audit
from db.enums import QuarantineReason, RevisionState
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

# Tables, not entities: ORM statements take two to three times the CPU, and every image waits for
# some of these.
_studies: Final = cast("Table", Study.__table__)
_instances: Final = cast("Table", Instance.__table__)
_reports: Final = cast("Table", ReportObjectRow.__table__)
_revisions: Final = cast("Table", Revision.__table__)

_received_at: Final = bindparam("at", type_=_revisions.c.last_received_at.type)
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
            *(
                select(column)
                .where(_studies.c.study_uid == bindparam("of_study"))
                .scalar_subquery()
                for column in (_studies.c.patient_id, _studies.c.accession_number)
            ),
        )
    )
)
"""A study has at most one revision that is receiving, its latest."""
_ADD: Final = Prepared(
    lambda dialect: insert_or_ignore_of(dialect, _instances).returning(
        _instances.c.sop_instance_uid
    ),
    columns=_instances.c.keys(),
)
_MR_CLASSES: Final = frozenset({MRImageStorage, EnhancedMRImageStorage})
"""SOP classes that no report of this node has."""


class _Identity(NamedTuple):
    """Whose a study is, as its row says."""

    patient_id: str
    accession_number: str

    def has(self, instance: ReceivedInstance) -> bool:
        """Whether an instance may belong to the study.

        An empty Patient ID in an instance matches any study: senders leave it out in emergencies.
        """
        return _storable(instance.patient_id) in ("", self.patient_id)

    def lacks(self, instance: ReceivedInstance) -> bool:
        """Whether the instance states an accession number and the study has none yet."""
        return bool(instance.accession_number) and not self.accession_number


class Intake(StrEnum):
    """Outcome of recording a received instance; each is a success for its sender."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """Same SOP Instance UID, same bytes: no new work."""
    OWN = "own"
    """A report of this node that was sent back: no new work, or the study would be graded again
    and again."""
    CONFLICT = QuarantineReason.CONFLICT.value
    """Same SOP Instance UID, other bytes: quarantined and audited, never graded."""
    OTHER_PATIENT = QuarantineReason.OTHER_PATIENT.value
    """Another Patient ID than the study's: quarantined and audited, never graded."""


_QUARANTINED: Final = (Intake.CONFLICT, Intake.OTHER_PATIENT)


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
        if (
            revision is not None
            and is_first
            and revision.study.has(instance)
            and not revision.study.lacks(instance)
        ):
            first[instance.sop_instance_uid] = n
            rows.append(_instance_row(instance, revision.id))
    return [first[uid] for uid in _insert(connection, rows)]


class _OpenRevision(NamedTuple):
    """A receiving revision, and whose its study is."""

    id: str
    study: _Identity


def _keep_receiving(
    connection: Connection, study_uid: str, received_at: datetime
) -> _OpenRevision | None:
    """Lock a study's receiving revision and extend its quiet period; None if there is none."""
    values = {"of_study": study_uid, "at": received_at}
    rows = _KEEP_RECEIVING.rows(connection, values)
    return _OpenRevision(rows[0][0], _Identity(*rows[0][1:])) if rows else None


def _record_in_detail(session: Session, instances: Sequence[ReceivedInstance]) -> list[Intake]:
    """Record instances that may be known already, of another patient, or of no receiving study."""
    studies = _lock_studies(session, instances)
    known = _read_digests(session, (i.sop_instance_uid for i in instances))
    new: dict[str, ReceivedInstance] = {}
    for instance in instances:
        if instance.sop_instance_uid not in known and studies[instance.study_uid].has(instance):
            new.setdefault(instance.sop_instance_uid, instance)

    latest = _read_latest_revisions(session, {i.study_uid for i in instances})
    inserted = _insert_new(session, new, latest)
    # Another transaction has inserted the others in the meantime.
    known |= _read_digests(session, new.keys() - inserted)
    known |= {uid: (new[uid].study_uid, new[uid].sha256) for uid in inserted}

    outcomes = []
    for instance in instances:
        uid = instance.sop_instance_uid
        if uid in inserted and new[uid] is instance:
            outcomes.append(Intake.STORED)
        elif known.get(uid) == (instance.study_uid, instance.sha256):
            outcomes.append(Intake.DUPLICATE)
        elif not studies[instance.study_uid].has(instance):
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


def _insert(connection: Connection, rows: Sequence[Mapping[str, object]]) -> set[str]:
    """Insert rows of `instances` whose SOP Instance UID is not known; return the UIDs inserted."""
    return {str(row["sop_instance_uid"]) for row in rows if _ADD.rows(connection, row)}


def _read_own(session: Session, instances: Sequence[ReceivedInstance]) -> set[str]:
    uids = {i.sop_instance_uid for i in instances if i.sop_class_uid not in _MR_CLASSES}
    if not uids:
        return set()
    found = select(_reports.c.sop_instance_uid).where(_reports.c.sop_instance_uid.in_(uids))
    return set(session.connection().scalars(found))


def _lock_studies(session: Session, instances: Sequence[ReceivedInstance]) -> dict[str, _Identity]:
    """Lock the studies, creating those that are new; return whose each is.

    A study without a Patient ID or Accession Number adopts the first one that is not empty, the
    Accession Number only of an instance that belongs to it.
    """
    first = {i.study_uid: i for i in reversed(instances)}
    rows = [
        {
            "study_uid": uid,
            "patient_id": _storable(first[uid].patient_id),
            "accession_number": _storable(first[uid].accession_number),
            "study_date": _storable(first[uid].study_date),
            "first_received_at": first[uid].received_at,
        }
        for uid in sorted(first)  # the same order in every transaction, so that none deadlock
    ]
    locked = (
        select(_studies.c.study_uid, _studies.c.patient_id, _studies.c.accession_number)
        .where(_studies.c.study_uid.in_(first))
        .order_by(_studies.c.study_uid)
        .with_for_update(key_share=True)
    )
    connection = session.connection()
    studies = connection.execute(locked).all()
    if len(studies) < len(rows):
        connection.execute(insert_or_ignore(session, _studies), rows)
        studies = connection.execute(locked).all()
    identities = {row.study_uid: _Identity(*row[1:]) for row in studies}
    for instance in instances:
        known = identities[instance.study_uid]
        adopted = known
        if not known.patient_id:
            adopted = adopted._replace(patient_id=_storable(instance.patient_id))
        if adopted.has(instance) and not known.accession_number:
            adopted = adopted._replace(accession_number=_storable(instance.accession_number))
        if adopted != known:
            identities[instance.study_uid] = adopted
            connection.execute(
                update(_studies)
                .where(_studies.c.study_uid == instance.study_uid)
                .values(adopted._asdict())
            )
    return identities


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


def _insert_new(
    session: Session, new: dict[str, ReceivedInstance], latest: dict[str, Revision]
) -> set[str]:
    """Insert new instances, opening revisions for them in `latest`; return the UIDs inserted."""
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
    rows = [_instance_row(i, latest[i.study_uid].id) for i in new.values()]
    return _insert(session.connection(), rows)


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
    for instance, outcome in instances:
        reason = QuarantineReason(outcome)
        row = {**_file_row(instance), "reason": reason}
        statement = insert_or_ignore(session, QuarantinedInstance).values(row)
        if session.scalar(statement.returning(QuarantinedInstance.id)) is None:
            continue  # sent again: it was quarantined and audited the first time
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
    """Text that both databases accept: no NUL and nothing that UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
