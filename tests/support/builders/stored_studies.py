"""Studies with real files: received, graded and delivered in the database, small on disk."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from db.delivery import claims
from db.enums import Proof
from db.grading.results import store_graded
from db.models import Delivery
from db.receiving.intake import Intake, record_instances
from tests.support.builders.records import PACS, STUDY, after, claim, graded_study, instance
from tests.support.builders.records import queue_study as queue

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from core.studies import ReceivedInstance


def received(folder: Path, number: int, *, study: str = STUDY, **changes: Any) -> ReceivedInstance:
    """Instance `number` with its file in `folder`, as the receiver leaves it."""
    content = f"{study} {number} {changes.pop('content', '')}".encode()
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / "spool" / sha256[:2] / f"{sha256}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    made: ReceivedInstance = instance(
        number, study=study, path=path, sha256=sha256, size_bytes=len(content), **changes
    )
    return made


def receive(session: Session, *instances: ReceivedInstance) -> list[Intake]:
    """Record instances."""
    return record_instances(session, instances)


def grade(
    session: Session, folder: Path, revision_id: str, *, at: float = 31.0, uid: str = "2.25.1"
) -> list[Path]:
    """Grade a queued revision, plan its delivery to the PACS; return the report's files."""
    claimed = claim(session, revision_id, at=at)
    result = graded_study(revision_id, uid=uid)
    paths = []
    for item in result.report.objects:
        path = folder / "reports" / f"{hashlib.sha256(item.content).hexdigest()}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.content)
        paths.append(path)
    assert store_graded(
        session, claimed, result, paths=paths, destinations=[PACS], now=after(at + 1)
    )
    return paths


def deliver(session: Session, revision_id: str, *, at: float = 40.0) -> None:
    """Deliver what is planned for a revision."""
    for delivery_id in session.scalars(
        select(Delivery.id).where(Delivery.revision_id == revision_id)
    ).all():
        claimed = claims.claim_delivery(session, delivery_id, now=after(at), lease_s=60)
        assert claimed is not None
        assert claims.record_delivered(
            session, claimed, now=after(at + 1), proof=Proof.STORE_STATUS, statuses={}
        )


def delivered_study(
    session: Session, folder: Path, *, study: str = STUDY, n: int = 3, at: float = 0.0
) -> tuple[str, list[Path], list[Path]]:
    """Receive, grade and deliver a study; return revision, images, report files."""
    first = [received(folder, k, study=study, received_at=after(at)) for k in range(1, n + 1)]
    revision_id = queue(session, study=study, n=0, at=at, first=first)
    reports = grade(
        session, folder, revision_id, at=at + 31, uid=f"2.25.{study.rpartition('.')[2]}"
    )
    deliver(session, revision_id, at=at + 40)
    return revision_id, [each.path for each in first], reports


def park(session: Session, revision_id: str) -> None:
    """Park the deliveries of a revision, as after a refusal."""
    session.execute(
        update(Delivery).where(Delivery.revision_id == revision_id).values(state="parked")
    )
