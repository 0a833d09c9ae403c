"""Plans deliveries: which objects of a report each destination receives."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import select

from core.destinations import Destination, DicomDestination, Hl7Destination, sr_variant
from core.results import ObjectKind, ReportObject
from db import outbox
from db.enums import DeliveryState
from db.models import Delivery, DeliveryObject, ReportObjectRow, Revision, Study

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session


def plan(
    session: Session,
    revision_id: str,
    objects: Sequence[tuple[ReportObjectRow, ReportObject]],
    destinations: Sequence[Destination],
    *,
    now: datetime,
    not_graded: bool = False,
) -> None:
    """Create the pending deliveries of a report.

    Parameters
    ----------
    session : Session
    revision_id : str
    objects : sequence of (ReportObjectRow, ReportObject)
        In the order of sending.
    destinations : sequence of Destination
    now : datetime
    not_graded : bool
        The report states that the study was not graded: only destinations that ask for such
        reports receive it.
    """
    for destination in _resolve(session, revision_id, destinations):
        if not_graded and not destination.not_graded:
            continue
        chosen = _choose([item for _, item in objects], destination, graded=not not_graded)
        delivery = Delivery(
            id=uuid.uuid4().hex,
            revision_id=revision_id,
            destination=destination.name,
            state=DeliveryState.PENDING,
            waiting_since=now,
        )
        session.add(delivery)
        session.flush()
        session.add_all(
            DeliveryObject(delivery_id=delivery.id, report_object_id=row.id)
            for row, item in objects
            if item.sop_instance_uid in chosen
        )
        outbox.put_delivery(session, delivery.id, notify_at=now)


def _resolve(
    session: Session, revision_id: str, destinations: Sequence[Destination]
) -> list[Destination]:
    """Replace ``*@*:port`` by the caller that opened the study; list each destination once.

    Only that caller: anyone admitted to the node can add an instance to a study later.
    """
    resolved: dict[str, Destination] = {
        destination.name: destination
        for destination in destinations
        if not (isinstance(destination, DicomDestination) and destination.is_sender)
    }
    calling_ae, address = session.execute(
        select(Study.calling_ae, Study.peer_address)
        .join(Revision, Revision.study_uid == Study.study_uid)
        .where(Revision.id == revision_id)
    ).one()
    for destination in destinations:
        if isinstance(destination, DicomDestination) and destination.is_sender:
            sender = destination.resolved(calling_ae, address)
            resolved.setdefault(sender.name, sender)
    return list(resolved.values())


def _choose(objects: Sequence[ReportObject], destination: Destination, *, graded: bool) -> set[str]:
    """Return the SOP Instance UIDs of the objects that a destination receives: one SR at most.

    An HL7 message is built from the first SR.
    """
    if isinstance(destination, Hl7Destination):
        reports = [o for o in objects if o.kind is ObjectKind.STRUCTURED_REPORT]
        return {report.sop_instance_uid for report in reports[:1]}
    variant = sr_variant(destination, graded=graded)
    wanted = {
        ObjectKind.SECONDARY_CAPTURE: destination.secondary_capture,
        ObjectKind.PARAMETRIC_MAP: destination.parametric_map,
    }
    if all(item.variant != variant for item in objects):
        raise LookupError(f"the report has no SR of the variant {variant}")
    return {
        item.sop_instance_uid
        for item in objects
        if item.variant == variant or wanted.get(item.kind, False)
    }
