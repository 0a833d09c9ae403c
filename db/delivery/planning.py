"""Delivery, first half: which destination is to receive which objects of a report."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from core.destinations import Destination, DicomDestination, Hl7Destination
from core.results import ObjectKind, ReportObject
from db import outbox
from db.enums import DeliveryState
from db.models import Delivery, DeliveryObject, Instance, ReportObjectRow, Revision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

# PS3.4 B.5: the two classes that `DicomDestination.sr` chooses from.
_SR_CLASS: Final = {
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "comprehensive3d": "1.2.840.10008.5.1.4.1.1.88.34",
}


def plan(
    session: Session,
    revision_id: str,
    objects: Sequence[tuple[ReportObjectRow, ReportObject]],
    destinations: Sequence[Destination],
    *,
    now: datetime,
    not_graded: bool = False,
) -> None:
    """Let the objects of a revision, each with its row, wait for delivery to every destination.

    With `not_graded` they say that there is no grade: only to destinations that ask to be told.
    """
    for destination in _resolve(session, revision_id, destinations):
        if not_graded and not destination.not_graded:
            continue
        chosen = _choose([item for _, item in objects], destination)
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
        outbox.put_delivery(session, delivery.id, ring_at=now)


def _resolve(
    session: Session, revision_id: str, destinations: Sequence[Destination]
) -> list[Destination]:
    """Put the senders of the study in the place of what stands for them, each destination once."""
    resolved: dict[str, Destination] = {
        destination.name: destination
        for destination in destinations
        if not (isinstance(destination, DicomDestination) and destination.is_sender)
    }
    senders = session.execute(
        select(Instance.calling_ae, Instance.peer_address)
        .join(Revision, Revision.study_uid == Instance.study_uid)
        .where(Revision.id == revision_id)
        .distinct()
        .order_by(Instance.calling_ae, Instance.peer_address)
    ).all()
    for destination in destinations:
        if isinstance(destination, DicomDestination) and destination.is_sender:
            for calling_ae, address in senders:
                sender = destination.resolved(calling_ae, address)
                resolved.setdefault(sender.name, sender)
    return list(resolved.values())


def _choose(objects: Sequence[ReportObject], destination: Destination) -> set[str]:
    """Choose what this destination takes, by SOP Instance UID, with one SR.

    The SR is the one of the class asked for that refers to as much as possible of what is sent
    along, and to nothing else: a reference to what was never sent would dangle in the archive.
    An HL7 message is made of any SR: it carries no references.
    """
    if isinstance(destination, Hl7Destination):
        reports = [o for o in objects if o.kind is ObjectKind.STRUCTURED_REPORT]
        return {report.sop_instance_uid for report in reports[:1]}
    wanted = {
        ObjectKind.SECONDARY_CAPTURE: destination.secondary_capture,
        ObjectKind.PARAMETRIC_MAP: destination.parametric_map,
        ObjectKind.STRUCTURED_REPORT: False,  # chosen below
    }
    chosen = {item.sop_instance_uid for item in objects if wanted[item.kind]}
    fitting = [
        item
        for item in objects
        if item.kind is ObjectKind.STRUCTURED_REPORT and chosen.issuperset(item.refers_to)
    ]
    best = max(
        fitting,
        key=lambda sr: (sr.sop_class_uid == _SR_CLASS[destination.sr], len(sr.refers_to)),
        default=None,
    )
    return chosen if best is None else chosen | {best.sop_instance_uid}
