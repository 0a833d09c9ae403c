"""Attacks that would put a report into another patient's record."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from sqlalchemy import select

from core.reasons import Reason
from core.settings import load_settings
from core.studies import ReceivedInstance
from db.models import Delivery, ReportObjectRow, Revision
from db.receiving.closing import close_quiet_studies
from db.receiving.intake import record_instances
from db.session import unit_of_work
from receiver.status import Status
from tests.support.builders.gradings import Pipeline, ScriptedGrading
from tests.support.builders.made_study import identity_of, make_graded, receive_study
from tests.support.builders.mr_series import make_image
from tests.support.builders.records import INTENDED_USE
from tests.support.clients.scu import association, send_raw
from tests.support.servers.receiver import run_receiver
from worker.grading.attempt import attempt_grading
from worker.grading.errors import NotGradable
from worker.grading.pipeline import GradingOptions, add_not_graded_report, not_graded_study
from worker.grading.reading.source import read_study_header
from worker.grading.records import Selection
from worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.results import GradedStudy, NotGradedStudy
    from core.studies import ClosedStudy

SECOND_PATIENT_ID = struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 8) + b"CANARY-8"


def test_a_second_patient_id_is_refused_wherever_it_is(tmp_path: Path) -> None:
    image = make_image(size=256)
    image.DataSetTrailingPadding = bytes(4)
    del image.file_meta
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, image, implicit_vr=False, little_endian=True)
    sound = buffer.getvalue()
    rows = sound.index(struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 2))
    hidden = {
        "after Series UID": sound[:rows] + SECOND_PATIENT_ID + sound[rows:],
        "after the pixel data": sound + SECOND_PATIENT_ID,
    }
    for data in hidden.values():
        assert pydicom.dcmread(BytesIO(data), force=True).PatientID == "CANARY-8"

    uid = image.SOPInstanceUID
    with (
        run_receiver(tmp_path) as receiver,
        association(receiver.port, [(MRImageStorage, ExplicitVRLittleEndian)]) as assoc,
    ):
        answers = {name: send_raw(assoc, data, uid) for name, data in hidden.items()}
        assert answers == dict.fromkeys(hidden, Status.HEADER_UNREADABLE)
        assert send_raw(assoc, sound, uid) == Status.SUCCESS
        assert len(receiver.files()) == len(receiver.instances()) == 1


@pytest.fixture
def services(tmp_path: Path, sqlite_template: Path) -> Iterator[Services]:
    (tmp_path / "epvs.sqlite").write_bytes(sqlite_template.read_bytes())
    made = Services(load_settings(data_dir=tmp_path, destinations="PACS@127.0.0.1:104?notgraded=1"))
    yield made
    made.engine.dispose()


def attempt(services: Services, pipeline: Pipeline) -> tuple[Revision, int]:
    """The revision after one attempt at it, and how many objects and deliveries there are."""
    with unit_of_work(services.engine) as session:
        (revision_id,) = close_quiet_studies(
            session, now=datetime.now(UTC), quiet_period_s=0, max_open_s=1
        )
    services.pin_models = lambda: ScriptedGrading(pipeline)  # type: ignore[method-assign]
    attempt_grading(services)
    with unit_of_work(services.engine) as session:
        kept = [session.scalars(select(table)).all() for table in (ReportObjectRow, Delivery)]
        return session.get_one(Revision, revision_id), sum(len(rows) for rows in kept)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("patient_id", "CANARY-8"), ("study_uid", "1.2.3.4"), ("accession_number", "A2")],
)
def test_no_report_is_kept_that_differs_from_the_row_of_its_study(
    services: Services, attribute: str, value: str
) -> None:
    def misled(study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        graded = make_graded(study)
        identity = replace(identity_of(study), **{attribute: value})
        return replace(graded, report=replace(graded.report, identity=identity))

    with unit_of_work(services.engine) as session:
        receive_study(session, "1.2.3")
    revision, kept = attempt(services, misled)
    assert (revision.state, revision.reason, kept) == ("failed", "identity-mismatch", 0)
    assert value not in (revision.reason_detail or "")
    assert list(services.settings.reports_dir.iterdir()) == []


def test_no_report_is_kept_whose_files_name_another_patient_than_the_receiver_read(
    services: Services, tmp_path: Path
) -> None:
    """As if the receiver had been misled: the pipeline reads another Patient ID in the file."""
    path = tmp_path / "instance.dcm"
    make_image().save_as(path, enforce_file_format=True)
    received = ReceivedInstance(
        study_uid="1.2.3",
        series_uid="1.2.3.1",
        sop_instance_uid="1.2.3.1.1",
        sop_class_uid=MRImageStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        path=path,
        sha256="0" * 64,
        size_bytes=path.stat().st_size,
        calling_ae="PACS",
        peer_address="192.0.2.10",
        received_at=datetime.now(UTC),
        patient_id="CANARY-4712",
        accession_number="A-1",
    )
    with unit_of_work(services.engine) as session:
        record_instances(session, [received])
    revision, kept = attempt(services, partial(report_not_graded, services))
    assert (revision.state, revision.reason, kept) == ("failed", "identity-mismatch", 0)


def report_not_graded(
    services: Services, study: ClosedStudy, completed_at: datetime
) -> NotGradedStudy:
    """The pipeline's report on a study that cannot be graded."""
    return add_not_graded_report(
        not_graded_study(study, Selection((), None), NotGradable(Reason.NOT_AXIAL), ()),
        study,
        read_study_header(study),
        completed_at,
        intended_use=INTENDED_USE,
        options=GradingOptions.from_settings(services.settings),
    )
