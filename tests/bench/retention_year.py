"""Makes a year of studies for `tests.bench.retention`: rows in SQL and files of a few bytes."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, insert, select, update

from core.uids import digest
from db import audit
from db.models import (
    AuditEvent,
    Delivery,
    DeliveryObject,
    GradeRow,
    ImageRatingRow,
    Instance,
    ModelVersion,
    QuarantinedInstance,
    RefusalCount,
    ReportObjectRow,
    Revision,
    SeriesVerdictRow,
    ShadowGrade,
    ShadowImageRating,
    StageTimingRow,
    Study,
)
from db.session import unit_of_work

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
STATES: Final = (
    "receiving",
    "closed",
    "queued",
    "processing",
    "graded",
    "delivery-done",
    "delivered",
)
STAGES: Final = ("selection", "assembly", "registration", "rating", "severity", "report")
IMAGES: Final = [
    {"level": level, "side": side} for level in ("inferior", "middle", "superior") for side in "LR"
]
N_REPORT_FILES: Final = 4


def leave_work_open(engine: Engine, last_day: int) -> None:
    """Leave on the last day what a node in trouble has open, and a month of shadow results; once.

    Nothing of the last day is delivered and every eighth delivery is parked, failed studies of a
    month wait for somebody, so do instances in quarantine, and refusals have all their rows.
    """
    day, month = (START + timedelta(days=last_day - ago) for ago in (0, 29))
    with unit_of_work(engine) as session:
        if session.scalar(select(ShadowGrade.revision_id).limit(1)) is not None:
            return
        of_day = select(Revision.id).where(Revision.opened_at >= day)
        is_open = Delivery.revision_id.in_(of_day)
        session.execute(
            update(Delivery)
            .where(is_open)
            .values(state="pending", delivered_at=None, proof=None, last_error="no connection")
        )
        ids = session.scalars(select(Delivery.id).where(is_open).order_by(Delivery.id)).all()
        session.execute(update(Delivery).where(Delivery.id.in_(ids[::8])).values(state="parked"))
        session.execute(
            update(Revision)
            .where(Revision.opened_at >= day, Revision.state == "delivered")
            .values(state="graded", delivered_at=None)
        )
        session.execute(
            update(Revision)
            .where(Revision.opened_at >= month, Revision.state == "failed")
            .values(abandoned_at=None)
        )
        connection = session.connection()
        connection.execute(insert(RefusalCount), [_refusal(n, day) for n in range(500)])
        connection.execute(
            insert(QuarantinedInstance), [_quarantined(n, last_day, day) for n in range(100)]
        )
        graded = session.execute(
            select(GradeRow.revision_id, GradeRow.rating_model_id, GradeRow.severity_model_id)
            .join(Revision, Revision.id == GradeRow.revision_id)
            .where(Revision.opened_at >= month)
        ).all()
        connection.execute(
            insert(ShadowGrade),
            [
                {
                    "revision_id": revision,
                    "model": name,
                    "version": "2",
                    "model_version_id": model,
                    "rating": 2 if name == "rating" else None,
                    "majority_rating": 2 if name == "rating" else None,
                    "severity": "none-to-mild" if name == "severity" else None,
                    "probability": 0.5,
                    "seconds": 1.0,
                    "graded_at": day,
                }
                for revision, *models in graded
                for name, model in zip(("rating", "severity"), models, strict=True)
            ],
        )
        connection.execute(
            insert(ShadowImageRating),
            [
                {"revision_id": revision, **image, "rating": 1, "probability": 0.5}
                for revision, *_ in graded
                for image in IMAGES
            ],
        )


def _refusal(n: int, at: datetime) -> dict[str, Any]:
    return {
        "event": "association-refused",
        "reason": "caller-not-on-allow-list",
        "calling_ae": f"AE{n % 8}",
        "peer_address": f"192.0.2.{n // 8}",
        "times": n,
        "first_at": at,
        "last_at": at,
    }


def _quarantined(n: int, day: int, at: datetime) -> dict[str, Any]:
    return {
        "sop_instance_uid": f"1.2.840.98.{n}",
        "study_uid": f"1.2.840.99.{day}.{n // 5}",
        "series_uid": "1.2.840.98",
        "path": f"/nowhere/{n}",
        "sha256": f"{n:064}",
        "size_bytes": 1,
        "calling_ae": "PACS",
        "peer_address": "192.0.2.1",
        "received_at": at,
    }


class Year:
    """Makes the rows and files of one day after the other."""

    def __init__(self, engine: Engine, folder: Path, n_studies: int, n_instances: int) -> None:
        self._engine = engine
        self._folder = folder
        self._n_studies = n_studies
        self._n_instances = n_instances
        for name in ("spool", "reports"):
            for shard in range(256):
                (folder / name / f"{shard:02x}").mkdir(parents=True, exist_ok=True)

    def next_day(self) -> int:
        """Number of the first day without studies."""
        with unit_of_work(self._engine, read_only=True) as session:
            last = session.scalar(select(func.max(Revision.opened_at)))
        return 0 if last is None else (last - START).days + 1

    def make(self, day: int) -> None:
        """Make a day, in one transaction."""
        rows: dict[Any, list[dict[str, Any]]] = {}
        for n in range(self._n_studies):
            self._make_study(rows, day, n)
        with unit_of_work(self._engine) as session:
            models = {name: self._model(session, name) for name in ("rating", "severity")}
            for grade in rows[GradeRow]:
                grade |= {f"{name}_model_id": key for name, key in models.items()}
            self._append_events(session, rows.pop(AuditEvent))
            for table, values in rows.items():
                session.connection().execute(insert(table), values)

    def _make_study(self, rows: dict[Any, list[dict[str, Any]]], day: int, n: int) -> None:
        def add(table: Any, **values: Any) -> None:
            rows.setdefault(table, []).append(values)

        at = START + timedelta(days=day, seconds=n * 86_000 / self._n_studies)
        study = f"1.2.840.99.{day}.{n}"
        revision, delivery = uuid.uuid4().hex, uuid.uuid4().hex
        is_rejected, is_failed = n % 5 == 4, n % 100 == 50
        last = "rejected" if is_rejected else "failed" if is_failed else "delivered"
        add(
            Study,
            study_uid=study,
            patient_id=f"P{day * 31 + n}",
            accession_number=f"A{day}-{n}",
            study_date=f"{at:%Y%m%d}",
            first_received_at=at,
            calling_ae="PACS",
            peer_address="192.0.2.1",
            identity_revision=1,
        )
        add(
            Revision,
            id=revision,
            study_uid=study,
            number=1,
            state=last,
            state_since=at + timedelta(minutes=3),
            opened_at=at,
            last_received_at=at,
            attempt=1,
            token=1,
            reason=None if last == "delivered" else "no-suitable-series",
            delivered_at=at + timedelta(minutes=3) if last == "delivered" else None,
        )
        for k in range(self._n_instances):
            path, sha256, size = self._file("spool", f"{study}.{k}")
            add(
                Instance,
                sop_instance_uid=f"{study}.5.{k}",
                study_uid=study,
                first_revision_id=revision,
                series_uid=f"{study}.5",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                modality="MR",
                path=path,
                sha256=sha256,
                size_bytes=size,
                calling_ae="PACS",
                peer_address="192.0.2.1",
                received_at=at,
            )
        for k, event in enumerate((*STATES[:4], last) if last != "delivered" else STATES):
            add(
                AuditEvent,
                at=at + timedelta(seconds=30 * k),
                event=event,
                study_uid=study,
                revision_id=revision,
                detail={"number": 1},
            )
        add(
            SeriesVerdictRow,
            revision_id=revision,
            series_uid=f"{study}.5",
            reason="selected",
            detail="",
            n_instances=self._n_instances,
        )
        if last == "delivered":
            self._make_result(add, study, revision, delivery, at, n)

    def _make_result(
        self,
        add: Callable[..., None],
        study: str,
        revision: str,
        delivery: str,
        at: datetime,
        n: int,
    ) -> None:
        grade = {column.name: 0.5 for column in GradeRow.__table__.columns}
        add(
            GradeRow,
            **grade
            | {
                "revision_id": revision,
                "study_uid": study,
                "seconds": len(STAGES) * 0.5,
                "series_uid": f"{study}.5",
                "rating": n % 5,
                "majority_rating": n % 5,
                "count_range": "11-20",
                "severity": "none-to-mild",
                "models_agree": True,
                "summary": "x" * 500,
                "caveat": "",
                "graded_at": at + timedelta(minutes=2),
            },
        )
        for image in IMAGES:
            add(
                ImageRatingRow,
                **image,
                revision_id=revision,
                slice_index=1,
                sop_instance_uid=f"{study}.5.1",
                frame_number=None,
                rating=1,
                probability=0.5,
            )
        for k, stage in enumerate(STAGES):
            add(StageTimingRow, revision_id=revision, position=k, stage=stage, seconds=0.5)
        add(
            Delivery,
            id=delivery,
            revision_id=revision,
            destination="PACS@192.0.2.1:104",
            state="delivered",
            attempt=1,
            token=1,
            waiting_since=at,
            proof="store-status",
            delivered_at=at + timedelta(minutes=3),
        )
        first = int((at - START).total_seconds())
        for k in range(N_REPORT_FILES):
            path, sha256, size = self._file("reports", f"{revision}.{k}")
            add(
                ReportObjectRow,
                id=first * N_REPORT_FILES + k,
                revision_id=revision,
                position=k,
                kind="sr" if k == 0 else "sc",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
                sop_instance_uid=f"2.25.{first}.{k}",
                series_uid=f"2.25.{first}",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                path=path,
                sha256=sha256,
                size_bytes=size,
            )
            add(
                DeliveryObject,
                delivery_id=delivery,
                report_object_id=first * N_REPORT_FILES + k,
                dimse_status=0,
            )

    def _file(self, kind: str, content: str) -> tuple[str, str, int]:
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        path = f"{self._folder}/{kind}/{sha256[:2]}/{sha256}.dcm"
        with open(path, "w") as file:  # noqa: PTH123 - made a million times
            file.write(content)
        return path, sha256, len(content)

    def _append_events(self, session: Session, events: list[dict[str, Any]]) -> None:
        """Continue the chain as `db.audit.append` does, a day at once."""
        seq, previous = audit.newest(session)
        events.sort(key=lambda event: event["at"])
        for event in events:
            seq += 1
            event |= {"seq": seq, "previous_hash": previous}
            stated = event | {"at": event["at"].isoformat(timespec="microseconds")}
            previous = event["hash"] = digest(stated)
        session.connection().execute(insert(AuditEvent), events)

    def _model(self, session: Session, name: str) -> int:
        known = session.scalar(select(ModelVersion.id).where(ModelVersion.name == name))
        if known is not None:
            return known
        row = ModelVersion(
            name=name,
            version="1",
            weights_sha256="0" * 64,
            display_name=name.capitalize(),
            training_data="synthetic",
        )
        session.add(row)
        session.flush()
        return row.id
