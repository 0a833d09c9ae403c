"""The check passes a valid report and fails on every kind of fault."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

import pydicom
import pytest

from core.errors import Failed
from core.reasons import Reason
from core.results import IntendedUse, ObjectKind, SRClass, SRVariant
from tests.support.builders.sources import (
    COMPLETED_AT,
    INTENDED_USE,
    Inputs,
    classic,
    inputs,
    not_graded,
    refused,
    uid,
)
from worker.grading.reading.source import read_source
from worker.grading.stages.report import codes
from worker.grading.stages.report.check import check_report
from worker.grading.stages.report.content_tree import is_named, walk
from worker.grading.stages.report.context import GradedContext, NotGradedContext

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
def context(given: Inputs) -> GradedContext:
    return GradedContext(
        study=given.study,
        source=read_source(given.volume.series),
        completed_at=COMPLETED_AT,
        station_name="epvs-test",
        intended_use=INTENDED_USE,
        volume=given.volume,
        grade=given.grade,
        saliency=given.saliency,
    )


@pytest.fixture(scope="module")
def without_grade(given: Inputs) -> NotGradedContext:
    return NotGradedContext(
        study=given.study,
        source=read_source(given.volume.series),
        completed_at=COMPLETED_AT,
        station_name="epvs-test",
        intended_use=INTENDED_USE,
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
    "PatientID is not that": lambda sr: setattr(sr, "PatientID", "CANARY-18"),
    "AccessionNumber is not that": lambda sr: setattr(sr, "AccessionNumber", "B"),
    "UIDs differ": lambda sr: setattr(sr, "SOPInstanceUID", "1.2.3"),
    "AccessionNumber is missing": lambda sr: sr.pop("AccessionNumber"),
    "SeriesDescription is missing or empty": lambda sr: setattr(sr, "SeriesDescription", ""),
    "DeviceUID is not a valid UID": lambda sr: setattr(sr, "DeviceUID", "1.02.3"),
}


def test_a_valid_report_passes(report: Report, context: GradedContext) -> None:
    check_report(report.objects, context)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("fault", SR_FAULTS)
def test_a_faulty_sr_fails(report: Report, context: GradedContext, fault: str) -> None:
    faulty = changed(report.objects[-1], SR_FAULTS[fault])
    with pytest.raises(Failed, match=fault) as failure:
        check_report([*report.objects[:-1], faulty], context)
    assert failure.value.code == "report-invalid"
    assert "Canary" not in str(failure.value)


def test_a_truncated_picture_fails(report: Report, context: GradedContext) -> None:
    faulty = changed(report.objects[0], lambda sc: setattr(sc, "PixelData", sc.PixelData[:-1000]))
    with pytest.raises(Failed, match="size of the image"):
        check_report([faulty], context)


def test_an_sr_that_refers_to_a_map_that_is_not_sent_with_it_fails(
    given: Inputs, context: GradedContext
) -> None:
    made = given.build(parametric_map=True)
    variant = SRVariant(SRClass.COMPREHENSIVE, parametric_map=False)
    dangling = replace(made.objects[-1], variant=variant)
    with pytest.raises(Failed, match="not sent with it"):
        check_report([*made.objects[:-1], dangling], context)


def test_objects_with_the_intended_use_of_other_models_fail(
    report: Report, context: GradedContext
) -> None:
    other = replace(context, intended_use=IntendedUse("For clinical use.", research_only=False))
    for item in report.objects:
        with pytest.raises(Failed, match="intended use is not that of the models"):
            check_report([item], other)


def test_content_that_is_not_dicom_fails(report: Report, context: GradedContext) -> None:
    with pytest.raises(Failed, match="not a Part 10 file"):
        check_report([replace(report.objects[0], content=b"no DICOM")], context)


def test_uids_in_use_fail(report: Report, context: GradedContext) -> None:
    with pytest.raises(Failed, match="share one SOP Instance UID"):
        check_report([report.objects[0], report.objects[0]], context)
    taken = replace(report.objects[0], sop_instance_uid=uid("classic-instance"))
    assert taken.kind is ObjectKind.SECONDARY_CAPTURE
    with pytest.raises(Failed, match="UID of a received instance"):
        check_report([taken], context)


# --- Reports on studies that were not graded -----------------------------------------------------


def state_another_reason(sr: Dataset) -> None:
    item = next(i for i in walk(sr) if is_named(i, codes.NOT_GRADED))
    item.ConceptCodeSequence[0].CodeValue = codes.REASONS[Reason.NOT_MR].value


NOT_GRADED_FAULTS: dict[str, Callable[[Dataset], object]] = {
    "the reason differs from that of the result": state_another_reason,
    "the reason differs": without(codes.NOT_GRADED),
    **{
        fault: SR_FAULTS[fault]
        for fault in ("no conclusion", "intended use", "does not exist", "not declared", "flags")
    },
}


def test_a_valid_report_without_grade_passes(
    given: Inputs, without_grade: NotGradedContext
) -> None:
    check_report(not_graded(given.study, refused(uid("classic"))).objects, without_grade)


@pytest.mark.parametrize("fault", NOT_GRADED_FAULTS)
def test_a_faulty_sr_without_grade_fails(
    given: Inputs, without_grade: NotGradedContext, fault: str
) -> None:
    (valid,) = not_graded(given.study, refused(uid("classic"))).objects
    with pytest.raises(Failed, match=fault) as failure:
        check_report([changed(valid, NOT_GRADED_FAULTS[fault])], without_grade)
    assert failure.value.code == "report-invalid"


def test_a_report_of_one_kind_fails_the_check_of_the_other(
    report: Report, given: Inputs, context: GradedContext, without_grade: NotGradedContext
) -> None:
    with pytest.raises(Failed, match="measurements of a study that was not graded"):
        check_report(report.objects, without_grade)
    with pytest.raises(Failed, match="measurement groups are not those of the grade"):
        check_report(not_graded(given.study, refused(uid("classic"))).objects, context)
