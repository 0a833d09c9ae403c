"""Quarantine: received instances that contradict earlier ones, until an operator decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db import audit
from db.models import QuarantinedInstance
from db.receiving.identity import storable
from db.session import insert_or_ignore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sqlalchemy.orm import Session

    from core.studies import ReceivedInstance
    from db.enums import QuarantineReason


def put(
    session: Session,
    instance: ReceivedInstance,
    row: Mapping[str, Any],
    reason: QuarantineReason,
    revision_id: str | None,
) -> None:
    """Keep an instance apart, and record it in the audit trail; once, however often it is sent.

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
        "accession_number": storable(instance.accession_number),
        "study_date": storable(instance.study_date),
    }
    statement = insert_or_ignore(session, QuarantinedInstance).values(values)
    if session.scalar(statement.returning(QuarantinedInstance.id)) is None:
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
