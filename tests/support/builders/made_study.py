"""Valid studies and reports without anatomy, for tests of everything but the pipeline."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from core.destinations import DEFAULT_VARIANT
from core.results import ObjectKind, Report, ReportIdentity, ReportObject
from db.delivery.claims import StoredObject
from db.receiving.intake import record_instances
from tests.support.builders.records import graded_study, instance

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from core.results import GradedStudy
    from core.studies import ClosedStudy

_SOP_CLASS = {
    ObjectKind.SECONDARY_CAPTURE: SecondaryCaptureImageStorage,
    ObjectKind.STRUCTURED_REPORT: ComprehensiveSRStorage,
}


def receive_study(session: Session, study_uid: str, *, n: int = 2) -> None:
    """Record a study as if the receiver had just stored it."""
    now = datetime.now(UTC)
    record_instances(
        session, [instance(k, study=study_uid, received_at=now) for k in range(1, n + 1)]
    )


def receive_files(session: Session, study: ClosedStudy) -> None:
    """Record a study of `sources` as if the receiver had just stored its files."""
    now = datetime.now(UTC)
    record_instances(
        session,
        [
            instance(
                number,
                study=study.study_uid,
                series_uid=stored.series_uid,
                sop_instance_uid=stored.sop_instance_uid,
                sop_class_uid=stored.sop_class_uid,
                path=stored.path,
                received_at=now,
                patient_id="CANARY-17",
                accession_number="",
            )
            for number, stored in enumerate(study.instances)
        ],
    )


def report_object(kind: ObjectKind, uid: str, *, padding: int = 0) -> ReportObject:
    """A Part 10 file that an archive accepts; `padding` bytes larger."""
    data_set = Dataset()
    data_set.SOPClassUID = UID(_SOP_CLASS[kind])
    data_set.SOPInstanceUID = UID(uid)
    data_set.StudyInstanceUID = "1.2.3"
    data_set.SeriesInstanceUID = f"{uid}.9"
    data_set.Modality = "SR" if kind is ObjectKind.STRUCTURED_REPORT else "OT"
    data_set.add_new(0x00090010, "LO", "EPVS TEST")
    data_set.add_new(0x00091001, "OB", b"\x00" * (padding + padding % 2))
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    data_set.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    data_set.save_as(buffer, enforce_file_format=True)
    return ReportObject(
        kind=kind,
        sop_class_uid=data_set.SOPClassUID,
        sop_instance_uid=uid,
        series_uid=data_set.SeriesInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content=_with_group_length(buffer.getvalue()),
        variant=DEFAULT_VARIANT if kind is ObjectKind.STRUCTURED_REPORT else None,
    )


def stored_object(made: ReportObject, folder: Path) -> StoredObject:
    """Write an object into `folder`, as a delivery finds it."""
    path = folder / "sr.dcm"
    path.write_bytes(made.content)
    return StoredObject(
        kind=made.kind,
        sop_class_uid=made.sop_class_uid,
        sop_instance_uid=made.sop_instance_uid,
        transfer_syntax_uid=made.transfer_syntax_uid,
        path=path,
        sha256=hashlib.sha256(made.content).hexdigest(),
    )


def _with_group_length(content: bytes) -> bytes:
    """Add a retired group length, which pydicom drops on writing, so re-encoding is detected."""
    start = len(content) - len(encoded_data_set(content))
    return content[:start] + b"\x08\x00\x00\x00UL\x04\x00\x10\x00\x00\x00" + content[start:]


def make_graded(study: ClosedStudy) -> GradedStudy:
    """What the pipeline would return, with one picture and one SR."""
    number = int(hashlib.sha256(study.revision_id.encode()).hexdigest()[:12], 16)
    objects = tuple(
        report_object(kind, f"2.25.{number}{position}") for position, kind in enumerate(_SOP_CLASS)
    )
    graded = graded_study(study.revision_id)
    return replace(graded, report=Report(objects, "Rating 2", identity_of(study)))


def identity_of(study: ClosedStudy) -> ReportIdentity:
    """What a report on a study of `receive_study` states."""
    return ReportIdentity(study.study_uid, "CANARY-7", "A1")


def encoded_data_set(content: bytes) -> bytes:
    """The part of a Part 10 file that C-STORE transfers: everything after group 0002."""
    group_length = int.from_bytes(content[140:144], "little")
    return content[144 + group_length :]
