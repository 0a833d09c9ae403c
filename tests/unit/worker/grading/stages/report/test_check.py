"""The gate lets a sound report through and stops every kind of broken one."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

import pydicom
import pytest

from core.errors import Failed
from core.reasons import Reason
from core.results import ObjectKind
from tests.support.builders.sources import (
    COMPLETED_AT,
    Inputs,
    classic,
    inputs,
    not_graded,
    refused,
    uid,
)
from worker.grading.stages.report import codes
from worker.grading.stages.report.check import check_report
from worker.grading.stages.report.document import Case, RejectedCase
from worker.grading.stages.report.source import read_source
from worker.grading.stages.report.tree import is_named, walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

    from core.results import Report, ReportObject


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs(classic(tmp_path_factory.mktemp("source")))


@pytest.fixture(scope="module")
def report(given: Inputs) -> Report:
    return given.build()


@pytest.fixture(scope="module")
def case(given: Inputs) -> Case:
    return Case(
        study=given.study,
        source=read_source(given.volume),
        completed_at=COMPLETED_AT,
        station_name="epvs-test",
        volume=given.volume,
        grade=given.grade,
        saliency=given.saliency,
    )


@pytest.fixture(scope="module")
def rejected(given: Inputs) -> RejectedCase:
    return RejectedCase(
        study=given.study,
        source=read_source(given.volume),
        completed_at=COMPLETED_AT,
        station_name="epvs-test",
        reason=Reason.NOT_A_T2_BRAIN,
        detail="",
        images=given.study.instances,
    )


def changed(item: ReportObject, change: Callable[[Dataset], object]) -> ReportObject:
    dataset = pydicom.dcmread(BytesIO(item.content))
    change(dataset)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    return replace(item, content=buffer.getvalue())


def without(name: Code) -> Callable[[Dataset], None]:
    def remove(dataset: Dataset) -> None:
        for parent in (dataset, *walk(dataset)):
            if "ContentSequence" in parent:
                parent.ContentSequence = [
                    i for i in parent.ContentSequence if not is_named(i, name)
                ]

    return remove


def shorten_evidence(sr: Dataset) -> None:
    series = sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence = series.ReferencedSOPSequence[:1]


def foreign_evidence(sr: Dataset) -> None:
    series = sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


SR_FAULTS: dict[str, Callable[[Dataset], object]] = {
    "no conclusion": without(codes.CONCLUSION),
    "intended use": without(codes.INTENDED_USE),
    "agreement": without(codes.AGREEMENT),
    "measurement groups": without(codes.MEASUREMENT_GROUP),
    "lacks Algorithm Parameters": without(codes.ALGORITHM_PARAMETERS),
    "evidence does not list": shorten_evidence,
    "does not exist": foreign_evidence,
    "not declared": lambda sr: sr.CodingSchemeIdentificationSequence.clear(),
    "flags": lambda sr: setattr(sr, "PreliminaryFlag", "FINAL"),
    "another study": lambda sr: setattr(sr, "StudyInstanceUID", "1.2.3"),
    "UIDs are not the ones": lambda sr: setattr(sr, "SOPInstanceUID", "1.2.3"),
    "AccessionNumber is missing": lambda sr: sr.pop("AccessionNumber"),
    "SeriesDescription is missing or empty": lambda sr: setattr(sr, "SeriesDescription", ""),
    "DeviceUID is not a valid UID": lambda sr: setattr(sr, "DeviceUID", "1.02.3"),
}


def test_a_sound_report_passes(report: Report, case: Case) -> None:
    check_report(report.objects, case)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("fault", SR_FAULTS)
def test_a_broken_sr_is_refused(report: Report, case: Case, fault: str) -> None:
    broken = changed(report.objects[-1], SR_FAULTS[fault])
    with pytest.raises(Failed, match=fault) as refusal:
        check_report([*report.objects[:-1], broken], case)
    assert refusal.value.code == "report-invalid"
    assert "Canary" not in str(refusal.value)


def test_a_truncated_picture_is_refused(report: Report, case: Case) -> None:
    broken = changed(report.objects[0], lambda sc: setattr(sc, "PixelData", sc.PixelData[:-1000]))
    with pytest.raises(Failed, match="size of the image"):
        check_report([broken], case)


def test_what_is_not_dicom_is_refused(report: Report, case: Case) -> None:
    with pytest.raises(Failed, match="not a Part 10 file"):
        check_report([replace(report.objects[0], content=b"no DICOM")], case)


def test_uids_that_are_taken_are_refused(report: Report, case: Case) -> None:
    with pytest.raises(Failed, match="share one SOP Instance UID"):
        check_report([report.objects[0], report.objects[0]], case)
    taken = replace(report.objects[0], sop_instance_uid=uid("classic-instance"))
    assert taken.kind is ObjectKind.SECONDARY_CAPTURE
    with pytest.raises(Failed, match="UID of a received instance"):
        check_report([taken], case)


# --- Of a study that was not graded --------------------------------------------------------------


def state_another_reason(sr: Dataset) -> None:
    item = next(i for i in walk(sr) if is_named(i, codes.NOT_GRADED))
    item.ConceptCodeSequence[0].CodeValue = codes.REASONS[Reason.NOT_MR].value


REJECTION_FAULTS: dict[str, Callable[[Dataset], object]] = {
    "the reason is not the one": state_another_reason,
    "rejected for": without(codes.NOT_GRADED),
    **{
        fault: SR_FAULTS[fault]
        for fault in ("no conclusion", "intended use", "does not exist", "not declared", "flags")
    },
}


def test_a_sound_report_without_grade_passes(given: Inputs, rejected: RejectedCase) -> None:
    check_report(not_graded(given.study, refused(uid("classic"))).objects, rejected)


@pytest.mark.parametrize("fault", REJECTION_FAULTS)
def test_a_broken_sr_without_grade_is_refused(
    given: Inputs, rejected: RejectedCase, fault: str
) -> None:
    (sound,) = not_graded(given.study, refused(uid("classic"))).objects
    with pytest.raises(Failed, match=fault) as refusal:
        check_report([changed(sound, REJECTION_FAULTS[fault])], rejected)
    assert refusal.value.code == "report-invalid"


def test_neither_kind_of_report_passes_for_the_other(
    report: Report, given: Inputs, case: Case, rejected: RejectedCase
) -> None:
    with pytest.raises(Failed, match="measurements of a study that was not graded"):
        check_report(report.objects, rejected)
    with pytest.raises(Failed, match="measurement groups are not those of the grade"):
        check_report(not_graded(given.study, refused(uid("classic"))).objects, case)
