"""Quarantine: received instances that contradict earlier ones, until an operator decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, update

from core.errors import EpvsError
from core.priorities import NORMAL
from db import audit
from db.enums import QuarantineReason, Resolution, RevisionState
from db.models import Instance, QuarantinedInstance, Revision, Study
from db.queries import find_study
from db.receiving import restoring
from db.receiving.closing import queue
from db.receiving.identity import storable
from db.session import insert_or_ignore
from db.states import move, open_revision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from core.studies import ReceivedInstance

_WAITS: Final = QuarantinedInstance.resolution.is_(None)
_FILE: Final = (
    "series_uid",
    "sop_class_uid",
    "transfer_syntax_uid",
    "modality",
    "path",
    "sha256",
    "size_bytes",
    "calling_ae",
    "peer_address",
    "received_at",
)
"""Columns of an instance that come from its file and its sender."""
_PATIENT: Final = ("patient_id", "issuer_of_patient_id", "accession_number", "study_date")
"""Columns of a study that come from its instances, and of a quarantined instance."""
_UNFINISHED: Final = (RevisionState.CLOSED, RevisionState.QUEUED, RevisionState.PROCESSING)


@dataclass(frozen=True, slots=True)
class Choice:
    """Quarantined instances of a study: all that wait, or those that match every field given."""

    study_uid: str
    reason: QuarantineReason | None = None
    calling_ae: str | None = None
    sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What accepting changed."""

    revision_id: str
    is_queued: bool
    """False while the study is still receiving: then it is graded when it closes."""
    n_instances: int


def put(
    session: Session,
    instance: ReceivedInstance,
    row: Mapping[str, Any],
    reason: QuarantineReason,
    revision_id: str | None,
) -> None:
    """Keep an instance apart, and record it in the audit trail.

    While it waits there, sending it again changes nothing. After an operator's decision it waits
    again.

    Parameters
    ----------
    session : Session
    instance : ReceivedInstance
    row : mapping
        Columns that it would have in `instances`.
    reason : QuarantineReason
    revision_id : str or None
        Latest revision of the study.
    """
    values = {
        **row,
        "reason": reason,
        "patient_id": storable(instance.patient_id),
        "issuer_of_patient_id": storable(instance.issuer_of_patient_id),
        "accession_number": storable(instance.accession_number),
        "study_date": storable(instance.study_date),
        "resolution": None,
        "removed_at": None,
    }
    restoring.keep(session, str(row["path"]))
    table = QuarantinedInstance
    statement = insert_or_ignore(session, table).values(values).returning(table.id)
    if session.scalar(statement) is None:
        again = update(table).where(
            table.sop_instance_uid == instance.sop_instance_uid,
            table.sha256 == instance.sha256,
            # Rows without a SOP class are from before these columns.
            table.resolution.is_not(None) | (table.sop_class_uid == ""),
        )
        if session.scalar(again.values(values).returning(table.id)) is None:
            return
    audit.append(
        session,
        "instance-quarantined",
        study_uid=instance.study_uid,
        revision_id=revision_id,
        detail={
            "reason": reason.value,
            "sop_instance_uid": instance.sop_instance_uid,
            "sha256": instance.sha256,
        },
        now=instance.received_at,
    )


def list_waiting(session: Session, study_uid: str | None = None) -> list[dict[str, Any]]:
    """Count what waits for an operator, by study, reason, sender and patient, oldest first."""
    table = QuarantinedInstance
    by = (table.study_uid, table.reason, table.calling_ae, table.peer_address, table.patient_id)
    first_at = func.min(table.received_at).label("first_at")
    rows = session.execute(
        select(
            *by,
            func.count().label("instances"),
            first_at,
            func.max(table.received_at).label("last_at"),
        )
        .where(_WAITS, *([table.study_uid == study_uid] if study_uid else []))
        .group_by(*by)
        .order_by(first_at)
    )
    return [dict(row) for row in rows.mappings()]


def discard(session: Session, choice: Choice, *, operator: str, now: datetime) -> int:
    """Leave instances out for good; retention removes their files later.

    Returns
    -------
    int
        Number of instances.

    Raises
    ------
    EpvsError
        None of the study's instances waits and matches.
    """
    rows = _find(session, choice)
    for row in rows:
        row.resolution = Resolution.DISCARDED
    session.flush()
    detail = {"operator": operator, **_summary(rows)}
    audit.append(
        session, "quarantine-discarded", study_uid=choice.study_uid, detail=detail, now=now
    )
    return len(rows)


def accept(session: Session, choice: Choice, *, operator: str, now: datetime) -> Accepted:
    """Take instances into their study, and have it graded again.

    An instance whose SOP Instance UID is known replaces the one that the study has. If the
    accepted instances state another Patient ID or Accession Number, they replace the study's
    identity, caller included, and its earlier instances leave it. Earlier revisions keep theirs.

    Raises
    ------
    EpvsError
        None of the study's instances waits and matches; they contradict each other; one is known in
        another study; or the study is being graded.
    """
    # The locks of the intake, in its order: the revisions, then the study.
    session.scalars(_revisions_of(choice.study_uid)).all()
    study = find_study(session, choice.study_uid, lock=True)
    revisions = session.scalars(_revisions_of(choice.study_uid)).all()
    if busy := next((r.state for r in revisions if r.state in _UNFINISHED), None):
        raise EpvsError(f"Study {study.study_uid} is still {busy}.", "Wait, then try again.")
    rows = _find(session, choice)
    latest = {row.sop_instance_uid: row for row in rows}  # of several contents, the last to arrive
    known = _read_known(session, study.study_uid, latest)

    revision = revisions[-1] if revisions else None
    is_open = revision is not None and revision.state is RevisionState.RECEIVING
    if revision is None or not is_open:
        number = revision.number + 1 if revision else 1
        detail = {"reason": "quarantine-accepted"}
        priority = revision.priority if revision else NORMAL
        revision = open_revision(
            session, study.study_uid, number, now=now, detail=detail, priority=priority
        )

    earlier = {name: getattr(study, name) for name in _PATIENT}
    n_replaced = len(known)
    is_other = _take_identity(study, rows)
    if is_other:
        study.identity_revision = revision.number
        n_replaced += _retire(session, study.study_uid, latest, before=revision.number)
    for row in rows:
        row.resolution = Resolution.REPLACED
    for uid, row in latest.items():
        if uid in known:
            _swap(row, known[uid], earlier)
            known[uid].first_revision_id, known[uid].last_revision = revision.id, None
        else:
            session.add(_instance(row, revision.id))
            row.resolution = Resolution.ACCEPTED
    session.flush()
    audit.append(
        session,
        "quarantine-accepted",
        study_uid=study.study_uid,
        revision_id=revision.id,
        detail={
            "operator": operator,
            **_summary(rows),
            "replaced": n_replaced,
            "other_identity": is_other,
        },
        now=now,
    )
    if not is_open:
        new = {"new_instances": len(latest)}
        move(session, revision, RevisionState.CLOSED, now=now, detail=new)
        queue(session, revision, now=now)
    return Accepted(revision.id, not is_open, len(latest))


def _find(session: Session, choice: Choice) -> list[QuarantinedInstance]:
    """Lock the chosen instances, in the order of their arrival."""
    table = QuarantinedInstance
    filters = {
        table.reason: choice.reason,
        table.calling_ae: choice.calling_ae,
        table.sop_instance_uid: choice.sop_instance_uid,
    }
    rows = session.scalars(
        select(table)
        .where(
            _WAITS,
            table.study_uid == choice.study_uid,
            *(column == value for column, value in filters.items() if value is not None),
        )
        .order_by(table.received_at, table.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    if not rows:
        raise EpvsError(
            f"No such instance of study {choice.study_uid} is in quarantine.",
            "'epvs-node quarantine list' shows those that are.",
        )
    return list(rows)


def _revisions_of(study_uid: str) -> Any:
    return (
        select(Revision)
        .where(Revision.study_uid == study_uid)
        .order_by(Revision.number)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def _read_known(
    session: Session, study_uid: str, chosen: Mapping[str, QuarantinedInstance]
) -> dict[str, Instance]:
    """Lock the stored instances with the same SOP Instance UIDs."""
    if any(not row.sop_class_uid for row in chosen.values()):
        raise EpvsError(
            "Instances quarantined by an earlier version cannot be accepted: too little is known.",
            "Send them again, then accept them.",
        )
    known = session.scalars(
        select(Instance)
        .where(Instance.sop_instance_uid.in_(chosen))
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    if elsewhere := next((i for i in known if i.study_uid != study_uid), None):
        raise EpvsError(
            f"Instance {elsewhere.sop_instance_uid} belongs to study {elsewhere.study_uid}.",
            "Discard it here: --instance with its SOP Instance UID.",
        )
    return {instance.sop_instance_uid: instance for instance in known}


def _stated(rows: Sequence[QuarantinedInstance], name: str, what: str) -> str:
    """Return the value that the instances have in common, or an empty text if they have none."""
    stated = {getattr(row, name) for row in rows} - {""}
    if len(stated) > 1:
        raise EpvsError(
            f"The instances have {len(stated)} different {what}s.",
            "Choose those of one: --reason, --caller or --instance.",
        )
    return str(stated.pop()) if stated else ""


def _retire(
    session: Session, study_uid: str, staying: Mapping[str, QuarantinedInstance], *, before: int
) -> int:
    """Let the study's earlier instances leave it before revision `before`."""
    left = session.scalars(
        update(Instance)
        .where(
            Instance.study_uid == study_uid,
            Instance.last_revision.is_(None),
            Instance.sop_instance_uid.not_in(staying),
        )
        .values(last_revision=before - 1)
        .returning(Instance.sop_instance_uid)
        .execution_options(synchronize_session=False)
    ).all()
    return len(left)


def _instance(row: QuarantinedInstance, revision_id: str) -> Instance:
    return Instance(
        sop_instance_uid=row.sop_instance_uid,
        study_uid=row.study_uid,
        first_revision_id=revision_id,
        **{name: getattr(row, name) for name in _FILE},
    )


def _swap(row: QuarantinedInstance, instance: Instance, identity: Mapping[str, str]) -> None:
    """Exchange two contents of one instance: the earlier one stays in quarantine.

    `identity` is that of the study before.
    """
    for name in _FILE:
        earlier = getattr(instance, name)
        setattr(instance, name, getattr(row, name))
        setattr(row, name, earlier)
    for name, value in identity.items():
        setattr(row, name, value)


def _take_identity(study: Study, rows: Sequence[QuarantinedInstance]) -> bool:
    """Give the study the identity of accepted instances; return whether it is another one."""
    patient_id = _stated(rows, "patient_id", "Patient ID")
    accession_number = _stated(rows, "accession_number", "Accession Number")
    is_other = patient_id not in ("", study.patient_id) or (
        bool(study.accession_number) and accession_number not in ("", study.accession_number)
    )
    study.patient_id = patient_id or study.patient_id
    if is_other:
        study.accession_number, study.study_date = accession_number, rows[0].study_date
        study.calling_ae, study.peer_address = rows[0].calling_ae, rows[0].peer_address
        study.issuer_of_patient_id = rows[0].issuer_of_patient_id
    else:
        study.accession_number = study.accession_number or accession_number
    return is_other


def _summary(rows: Sequence[QuarantinedInstance]) -> dict[str, Any]:
    return {"instances": len(rows), "reasons": dict(Counter(row.reason.value for row in rows))}
