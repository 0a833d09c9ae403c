"""Content and identity of the report on a study that was not graded."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING

import pydicom
import pytest

from core.errors import Failed
from core.reasons import Reason
from core.results import NotGradedStudy, ObjectKind, Report, SeriesVerdict, SRClass
from core.studies import SpooledInstance
from tests.support.builders.sources import (
    COMPLETED_AT,
    INTENDED_USE,
    SLICES,
    Inputs,
    classic,
    enhanced,
    inputs,
    not_graded,
    refused,
    superseding,
    uid,
    without_images,
)
from worker.grading.stages.report import codes, render_text
from worker.grading.stages.report.content_tree import is_named, walk
from worker.grading.stages.report.not_graded_sr import conclusion

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code


NO_SERIES = NotGradedStudy("r", Reason.NO_SUITABLE_SERIES, "series: 1 derived, 2 localizer")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs(classic(tmp_path_factory.mktemp("source")))


@pytest.fixture(scope="module")
def report(given: Inputs) -> Report:
    return not_graded(given.study, refused(uid("classic")))


def sr_of(report: Report) -> Dataset:
    return pydicom.dcmread(BytesIO(report.objects[-1].content))


def named(sr: Dataset, name: Code) -> list[Dataset]:
    return [item for item in walk(sr) if is_named(item, name)]


def images_of(sr: Dataset) -> list[str]:
    return [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in walk(sr)
        if item.ValueType == "IMAGE"
    ]


def evidence_of(sr: Dataset) -> set[str]:
    return {
        instance.ReferencedSOPInstanceUID
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


# --- Content -------------------------------------------------------------------------------------


def test_the_report_is_one_sr_with_the_reason_and_without_measurements(report: Report) -> None:
    assert [item.kind for item in report.objects] == [ObjectKind.STRUCTURED_REPORT]
    sr = sr_of(report)
    (reason,) = named(sr, codes.NOT_GRADED)
    assert reason.ConceptCodeSequence[0].CodeValue == "NGNOTBRAIN"
    assert reason.ConceptCodeSequence[0].CodingSchemeDesignator == codes.SCHEME
    for absent in (codes.IMAGING_MEASUREMENTS, codes.MEASUREMENT_GROUP, codes.FINDING, codes.EPVS):
        assert named(sr, absent) == []
    assert [item.TextValue for item in named(sr, codes.INTENDED_USE)] == [INTENDED_USE.statement]
    (comment,) = named(sr, codes.COMMENT)
    assert comment.TextValue == "correlation over the brain 0.12 (at least 0.35 needed)"
    assert sr.SeriesDescription == "EPVS not graded (RESEARCH USE ONLY)"


@pytest.mark.parametrize("reason", sorted(codes.REASONS))
def test_every_conclusion_states_the_reason_and_what_it_does_not_mean(reason: Reason) -> None:
    text = conclusion(reason)
    assert f"Reason: {codes.REASONS[reason].meaning}." in text
    assert "were not graded" in text
    assert "does not indicate whether EPVS are present" in text


def test_listed_images_are_those_of_the_series_that_the_reason_concerns(
    given: Inputs, report: Report
) -> None:
    expected = [instance.sop_instance_uid for instance in given.study.instances]
    assert images_of(sr_of(report)) == expected
    assert images_of(sr_of(not_graded(given.study, NO_SERIES))) == []


def test_no_images_are_listed_if_the_reason_concerns_two_series(given: Inputs) -> None:
    twins = tuple(
        SeriesVerdict(series_uid, Reason.LOCALIZER, "slices 15 mm thick", 3)
        for series_uid in (uid("classic"), uid("other-series"))
    )
    rejection = NotGradedStudy("r", Reason.LOCALIZER, "slices 15 mm thick", twins)
    assert images_of(sr_of(not_graded(given.study, rejection))) == []


def test_objects_other_than_mr_images_are_evidence_but_not_in_the_library(tmp_path: Path) -> None:
    study = without_images(tmp_path)
    sr = sr_of(not_graded(study, refused(uid("documents"), Reason.NO_IMAGES)))
    assert images_of(sr) == []
    assert evidence_of(sr) == {instance.sop_instance_uid for instance in study.instances}


def test_enhanced_images_are_referred_to_as_a_whole(tmp_path: Path) -> None:
    given = inputs(enhanced(tmp_path))
    sr = sr_of(not_graded(given.study, refused(uid("enhanced"), Reason.TOO_FEW_SLICES)))
    assert images_of(sr) == [uid("enhanced-instance")]


def test_a_detail_is_written_in_ascii(given: Inputs) -> None:
    detail = "normal 77° from the axis, 96×80, syntax \x1b\u200b"
    rejection = NotGradedStudy("r", Reason.NOT_AXIAL, detail)
    (comment,) = named(sr_of(not_graded(given.study, rejection)), codes.COMMENT)
    assert comment.TextValue == "normal 77 degrees from the axis, 96x80, syntax ??"
    without_detail = NotGradedStudy("r", Reason.NOT_AXIAL, "")
    assert not named(sr_of(not_graded(given.study, without_detail)), codes.COMMENT)


# --- Patient and study ---------------------------------------------------------------------------


def test_patient_and_study_come_from_the_first_readable_instance(
    given: Inputs, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"no DICOM")
    first, *others = given.study.instances
    foreign = replace(first, path=classic_of_another_study(tmp_path), sop_instance_uid="1.2.1")
    instances = (
        *reversed(others),
        foreign,
        SpooledInstance(broken, "1.2.2", first.sop_class_uid, "1.2"),
        SpooledInstance(tmp_path / "gone.dcm", "1.2.3", first.sop_class_uid, "1.2"),
    )
    sr = sr_of(not_graded(replace(given.study, instances=instances), NO_SERIES))
    assert (sr.PatientName, sr.PatientID) == ("Canary^Patient", "CANARY-17")
    assert (sr.AccessionNumber, sr.StudyDate) == ("ACC0001", "20260302")
    assert sr.StudyInstanceUID == given.study.study_uid


def classic_of_another_study(folder: Path) -> Path:
    def edit(ds: Dataset) -> None:
        ds.StudyInstanceUID, ds.PatientName = uid("another-study"), "Someone^Else"

    (folder / "other").mkdir()
    return classic(folder / "other", edit).slices[0].path


def test_without_a_readable_instance_there_is_no_report(given: Inputs, tmp_path: Path) -> None:
    gone = tuple(replace(i, path=tmp_path / "gone.dcm") for i in given.study.instances)
    with pytest.raises(Failed) as failure:
        not_graded(replace(given.study, instances=gone), NO_SERIES)
    assert failure.value.code == "no-readable-header"


def test_times_are_in_the_time_zone_of_the_study(tmp_path: Path) -> None:
    def in_tokyo(ds: Dataset) -> None:
        ds.TimezoneOffsetFromUTC = "+0900"

    sr = sr_of(not_graded(inputs(classic(tmp_path, in_tokyo)).study, NO_SERIES))
    assert (sr.ContentDate, sr.ContentTime, sr.SeriesTime) == ("20260302", "200533", "200533")


# --- Identity ------------------------------------------------------------------------------------


def test_the_same_inputs_give_the_same_bytes(given: Inputs, report: Report) -> None:
    assert not_graded(given.study, refused(uid("classic"))) == report


def test_what_changes_the_report_changes_its_uids(given: Inputs, report: Report) -> None:
    study = given.study
    rejection = refused(uid("classic"))
    variants = [
        report,
        not_graded(study, rejection, SRClass.COMPREHENSIVE_3D),
        not_graded(study, refused(uid("classic"), detail="no signal in the scan")),
        not_graded(study, refused(uid("classic"), Reason.OUTSIDE_FIELD_OF_VIEW)),
        not_graded(study, rejection, completed_at=COMPLETED_AT + timedelta(seconds=1)),
        not_graded(study, rejection, station_name="other"),
        not_graded(replace(study, revision_number=2), rejection),
        not_graded(replace(study, instances=study.instances[1:]), rejection),
        given.build(),
    ]
    objects = [item for variant in variants for item in variant.objects[-1:]]
    assert len({item.sop_instance_uid for item in objects}) == len(variants)
    assert len({item.series_uid for item in objects}) == len(variants)


def test_graded_and_not_graded_reports_supersede_each_other(given: Inputs, report: Report) -> None:
    def predecessor(sr: Dataset) -> str:
        (item,) = sr.PredecessorDocumentsSequence
        (series,) = item.ReferencedSeriesSequence
        return str(series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)

    graded = given.build()
    later = superseding(given, graded).study
    assert predecessor(sr_of(not_graded(later, NO_SERIES))) == graded.objects[-1].sop_instance_uid
    regraded = superseding(given, report).build()
    assert predecessor(sr_of(regraded)) == report.objects[-1].sop_instance_uid


# --- Text ----------------------------------------------------------------------------------------


def test_text_states_the_reason_and_no_findings(report: Report) -> None:
    text = render_text(sr_of(report))
    assert "Series does not look like a T2-weighted brain (99EPVS NGNOTBRAIN)" in text
    assert f"Images    {SLICES}, all of one series" in text
    assert "Figures   correlation over the brain 0.12" in text
    assert "Findings" not in text
    assert "Algorithms" not in text
    for secret in ("Canary^Patient", "CANARY-17", "ACC0001", "2026-03-02"):
        assert secret in text
        assert secret not in report.summary
