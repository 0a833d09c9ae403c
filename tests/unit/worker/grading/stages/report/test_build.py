"""Content and identity of reports; `tests.conformance` tests their validity as DICOM."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from core.errors import Failed
from core.results import ObjectKind, Report, Severity, SRClass, SRVariant
from tests.support.builders.sources import (
    COMPLETED_AT,
    INTENDED_USE,
    SPACING,
    Inputs,
    classic,
    enhanced,
    inputs,
    superseding,
    uid,
)
from worker.grading.records import RatingInput
from worker.grading.stages.report import build, codes, render_text, secondary_capture
from worker.grading.stages.report.content_tree import is_named, walk
from worker.grading.stages.report.objects import series_uid_of_sr

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs(classic(tmp_path_factory.mktemp("source")))


@pytest.fixture(scope="module")
def report(given: Inputs) -> Report:
    return given.build(parametric_map=True)


def sr_of(report: Report) -> Dataset:
    return pydicom.dcmread(BytesIO(report.objects[-1].content))


def groups(sr: Dataset) -> dict[str, Dataset]:
    found = [item for item in walk(sr) if is_named(item, codes.MEASUREMENT_GROUP)]
    return {
        next(i.TextValue for i in walk(group) if is_named(i, codes.TRACKING_IDENTIFIER)): group
        for group in found
    }


def value(group: Dataset, name: Code) -> str | None:
    for item in group.ContentSequence:
        if is_named(item, name):
            if item.ValueType == "NUM":
                return str(item.MeasuredValueSequence[0].NumericValue)
            return str(item.ConceptCodeSequence[0].CodeValue)
    return None


# --- Content -------------------------------------------------------------------------------------


def test_objects_come_in_the_order_of_sending(report: Report) -> None:
    kinds = [item.kind for item in report.objects]
    assert kinds == [ObjectKind.PARAMETRIC_MAP, *[ObjectKind.SECONDARY_CAPTURE] * 4, "sr"]
    numbers = [pydicom.dcmread(BytesIO(item.content)).SeriesNumber for item in report.objects]
    assert numbers == [9903, 9902, 9902, 9902, 9902, 9901]


def test_sr_states_every_rating_and_the_severity(given: Inputs, report: Report) -> None:
    found = groups(sr_of(report))
    subject = found.pop("EPVS-BG-SUBJECT-RATING")
    assert value(subject, codes.HIGHEST_RATING) == "EPVS3"
    assert value(subject, codes.MAJORITY_RATING) == "EPVS1"
    severity = found.pop("EPVS-BG-SEVERITY-3D")
    assert value(severity, codes.SEVERITY) == "EPVSMTS"
    assert value(severity, codes.SEVERITY_PROBABILITY) == "0.87"
    for image in given.grade.images:
        group = found.pop(f"EPVS-BG-{image.crop.level.name}-{image.crop.side}")
        assert value(group, codes.RATING) == f"EPVS{image.rating}"
    assert not found


def test_regions_refer_to_their_slice_and_use_the_pixel_corner_as_origin(
    given: Inputs, report: Report
) -> None:
    crop = given.grade.images[3].crop
    group = groups(sr_of(report))[f"EPVS-BG-{crop.level.name}-{crop.side}"]
    region = next(item for item in group.ContentSequence if item.ValueType == "SCOORD")
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == crop.sop_instance_uid
    points = np.reshape(region.GraphicData, (-1, 2))
    np.testing.assert_allclose(points[:4], np.array(crop.corners_px) + 0.5, atol=1e-3)
    np.testing.assert_array_equal(points[0], points[-1])


def test_rating_0_is_coded_as_absent_and_not_as_a_finding(given: Inputs) -> None:
    sr = sr_of(inputs(given.volume, ratings=(0,) * 6, p=0.03).build())
    for name, group in groups(sr).items():
        assert value(group, codes.FINDING) is None
        if name != "EPVS-BG-SEVERITY-3D":
            assert value(group, codes.EPVS) == codes.ABSENT.value
    assert "No enlarged perivascular spaces (EPVS) seen" in render_text(sr)


def test_only_the_subject_and_the_image_with_epvs_have_a_finding(given: Inputs) -> None:
    found = groups(sr_of(inputs(given.volume, ratings=(0, 0, 1, 0, 0, 0), p=0.03).build()))
    with_finding = [name for name, group in found.items() if value(group, codes.FINDING)]
    assert with_finding == ["EPVS-BG-SUBJECT-RATING", "EPVS-BG-MIDDLE-L"]


def test_disagreement_of_the_models_is_stated(given: Inputs) -> None:
    sr = sr_of(inputs(given.volume, ratings=(0,) * 6, p=0.9).build())
    agreement = next(item for item in walk(sr) if is_named(item, codes.AGREEMENT))
    assert agreement.ConceptCodeSequence[0].CodeValue == codes.DISAGREE.value
    assert "DISAGREE" in render_text(sr)


def test_algorithms_are_identified_by_their_weights(given: Inputs, report: Report) -> None:
    model = given.grade.rating_model
    retrained = replace(given.grade, rating_model=replace(model, weights_sha256="0" * 64))
    other = replace(given, grade=retrained).build()
    before, after = (
        [item.DeviceUID for item in sr_of(r).ContributingEquipmentSequence if "DeviceUID" in item]
        for r in (report, other)
    )
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert f"weights sha256: {'0' * 64}" in [item.get("TextValue") for item in walk(sr_of(other))]


def test_an_undefined_skewness_is_omitted(given: Inputs) -> None:
    statistics = replace(given.saliency.statistics, mean=0.0, skewness=float("nan"))
    empty = replace(given.saliency, statistics=statistics)
    found = groups(sr_of(replace(given, saliency=empty).build()))["EPVS-BG-SEVERITY-3D"]
    derivations = [
        item.ContentSequence[0].ConceptCodeSequence[0].CodeValue
        for item in found.ContentSequence
        if is_named(item, codes.GRAD_CAM)
    ]
    assert derivations == ["373098007", "FRACGT7", "FRACBG"]


def test_enhanced_source_is_referred_to_by_frame(tmp_path: Path) -> None:
    given = inputs(enhanced(tmp_path))
    report = given.build(parametric_map=True)
    crop = given.grade.images[0].crop
    group = groups(sr_of(report))[f"EPVS-BG-{crop.level.name}-{crop.side}"]
    region = next(item for item in group.ContentSequence if item.ValueType == "SCOORD")
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedFrameNumber == crop.frame_number == crop.slice_index + 1

    frames = pydicom.dcmread(BytesIO(report.objects[0].content)).PerFrameFunctionalGroupsSequence
    for frame in frames:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == uid("enhanced-instance")
        position = given.volume.slices[source.ReferencedFrameNumber - 1].position_mm
        assert tuple(frame.PlanePositionSequence[0].ImagePositionPatient) == position


def test_parametric_map_holds_the_saliency_on_the_grid_of_the_scan(
    given: Inputs, report: Report
) -> None:
    stored = pydicom.dcmread(BytesIO(report.objects[0].content))
    by_position = {
        tuple(frame.PlanePositionSequence[0].ImagePositionPatient): plane
        for frame, plane in zip(
            stored.PerFrameFunctionalGroupsSequence, stored.pixel_array, strict=True
        )
    }
    saliency = sitk.GetArrayFromImage(given.saliency.image)
    for location, expected in zip(given.volume.slices, saliency, strict=True):
        np.testing.assert_allclose(by_position[location.position_mm] / 1000, expected, atol=6e-4)
    measures = stored.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert tuple(measures.PixelSpacing) == SPACING


# --- Identity and time ---------------------------------------------------------------------------


def test_the_same_inputs_give_the_same_bytes(given: Inputs, report: Report) -> None:
    assert given.build(parametric_map=True) == report


def test_what_changes_the_report_changes_its_uids(given: Inputs, report: Report) -> None:
    grade = given.grade
    variants = {
        "severity": replace(given, grade=replace(grade, severity_probability=0.88)),
        "model": replace(
            given, grade=replace(grade, severity_model=replace(grade.severity_model, version="2"))
        ),
        "revision": superseding(given, report),
    }
    uids = [{item.sop_instance_uid for item in report.objects}]
    uids += [
        {item.sop_instance_uid for item in variant.build(parametric_map=True).objects}
        for variant in variants.values()
    ]
    later = given.build(parametric_map=True, completed_at=COMPLETED_AT + timedelta(seconds=1))
    uids.append({item.sop_instance_uid for item in later.objects})
    assert len(set.union(*uids)) == sum(map(len, uids))


def test_only_the_sr_variant_with_the_map_refers_to_it(given: Inputs, report: Report) -> None:
    """Destinations without the map receive the other SR, with the same pictures."""
    map_uid = report.objects[0].sop_instance_uid
    bare = given.build()
    assert bare.objects[:-1] == report.objects[1:-1]
    assert bare.objects[-1].sop_instance_uid != report.objects[-1].sop_instance_uid
    assert map_uid.encode() in report.objects[-1].content
    for item in (*bare.objects[:-1], report.objects[0]):
        assert item.sop_instance_uid.encode() not in bare.objects[-1].content
    assert bare.summary == report.summary


def test_all_variants_share_one_map_and_one_set_of_pictures(
    given: Inputs, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report in every variant draws the pictures once."""
    work: Counter[str] = Counter()

    def counted(module: ModuleType, name: str) -> None:
        function = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            work[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    counted(build, "build_parametric_map")
    counted(secondary_capture, "render_summary")
    counted(secondary_capture, "render_slice")
    variants = [SRVariant(sr_class, m) for m in (True, False) for sr_class in SRClass]
    every = given.build(variants=variants)
    assert work == {
        "build_parametric_map": 1,
        "render_summary": 1,
        "render_slice": 3,
    }
    assert [item.variant for item in every.objects] == [None] * 5 + variants
    assert every.objects[: len(report.objects)] == report.objects


def test_both_sr_classes_share_pictures_and_content_but_no_uid(given: Inputs) -> None:
    plain, three_d = given.build(), given.build(SRClass.COMPREHENSIVE_3D)
    assert plain.objects[:-1] == three_d.objects[:-1]
    assert plain.objects[-1].sop_instance_uid != three_d.objects[-1].sop_instance_uid
    assert sr_of(plain).ContentSequence[2:] == sr_of(three_d).ContentSequence[2:]


def test_a_new_revision_names_the_report_that_it_supersedes(given: Inputs, report: Report) -> None:
    previous = report.objects[-1]
    item = sr_of(superseding(given, report).build()).PredecessorDocumentsSequence[0]
    series = item.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == previous.series_uid
    assert previous.series_uid == series_uid_of_sr(previous.sop_instance_uid)
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == previous.sop_instance_uid


def test_a_report_supersedes_those_of_its_class(given: Inputs, report: Report) -> None:
    """An archive that receives one class does not know the SRs of the other."""
    bare, three_d = given.build(), given.build(SRClass.COMPREHENSIVE_3D)
    objects = (report.objects[-1], *bare.objects, three_d.objects[-1])
    both = superseding(given, replace(report, objects=objects))

    def predecessors(sr: Dataset) -> set[str]:
        return {
            series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for study in sr.PredecessorDocumentsSequence
            for series in study.ReferencedSeriesSequence
        }

    expected = {report.objects[-1].sop_instance_uid, bare.objects[-1].sop_instance_uid}
    assert predecessors(sr_of(both.build())) == expected
    assert predecessors(sr_of(both.build(SRClass.COMPREHENSIVE_3D))) == {
        three_d.objects[-1].sop_instance_uid
    }
    # A destination that has been set to another class since is still told what is superseded.
    switched = superseding(given, three_d)
    assert predecessors(sr_of(switched.build())) == {three_d.objects[-1].sop_instance_uid}


def test_times_are_those_of_completion_in_the_time_zone_of_the_study(tmp_path: Path) -> None:
    def in_tokyo(ds: Dataset) -> None:
        ds.TimezoneOffsetFromUTC = "+0900"

    (tmp_path / "utc").mkdir()
    plain = sr_of(inputs(classic(tmp_path / "utc")).build())
    tokyo = sr_of(inputs(classic(tmp_path, in_tokyo)).build())
    assert (plain.ContentDate, plain.ContentTime) == ("20260302", "110533")
    assert (tokyo.ContentTime, tokyo.InstanceCreationTime) == ("200533", "200533")
    assert tokyo.TimezoneOffsetFromUTC == "+0900"


# --- Text and errors -----------------------------------------------------------------------------


def test_summary_states_the_result_without_patient_data(report: Report) -> None:
    assert "rating 3 of 4 (21-40 EPVS)" in report.summary
    assert INTENDED_USE.statement in " ".join(report.summary.split())
    named = render_text(sr_of(report))
    for secret in ("Canary^Patient", "CANARY-17", "ACC0001", "2026-03-02"):
        assert secret in named
        assert secret not in report.summary
    assert uid("study") not in report.summary


def test_a_grade_of_other_images_fails(given: Inputs) -> None:
    other = RatingInput(np.zeros((6, 1, 112, 86), np.float32), ())
    with pytest.raises(Failed, match="does not belong to the images") as failure:
        given.build(rating_input=other)
    assert failure.value.code == "report-invalid"


def test_none_to_mild_is_not_a_finding_of_the_severity_model(given: Inputs) -> None:
    assert given.grade.severity is Severity.MODERATE_TO_SEVERE
    mild = inputs(given.volume, ratings=(1,) * 6, p=0.2)
    group = groups(sr_of(mild.build()))["EPVS-BG-SEVERITY-3D"]
    assert value(group, codes.SEVERITY) == "EPVSNTM"
    assert value(group, codes.FINDING) is None
