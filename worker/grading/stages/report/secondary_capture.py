"""Reporting: the pictures as DICOM Secondary Capture, the one object that every PACS shows."""

from __future__ import annotations

from highdicom.sc import SCImage
from pydicom.dataset import Dataset

from core.results import Level, ObjectKind, ReportObject
from worker.grading.stages.report import codes
from worker.grading.stages.report.document import (
    SERIES_NUMBER,
    Case,
    finish,
    pixels_digest,
    reference,
)
from worker.grading.stages.report.overlay import RGBArray, edge_letters
from worker.grading.stages.report.pictures import render_slice, render_summary


def build_secondary_captures(case: Case) -> tuple[ReportObject, ...]:
    """Build the series: the summary first, then one picture for each graded slice, upward."""
    shown = (case.volume, case.grade, case.saliency)
    graded = {image.crop.sop_instance_uid for image in case.grade.images}
    header = case.source.patient_and_study
    summary = render_summary(
        *shown, study_date=str(header.StudyDate), accession_number=str(header.AccessionNumber)
    )
    pages = [(summary, graded)]
    for level in Level:
        uids = {i.crop.sop_instance_uid for i in case.grade.images if i.crop.level is level}
        pages.append((render_slice(*shown, level), uids))
    return tuple(
        _build(case, number, pixels, uids) for number, (pixels, uids) in enumerate(pages, 1)
    )


def _build(case: Case, number: int, pixels: RGBArray, source_uids: set[str]) -> ReportObject:
    picture = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=edge_letters(case.volume.series),
        study_instance_uid=case.study.study_uid,
        series_instance_uid=case.uid("sc-series"),
        series_number=SERIES_NUMBER[ObjectKind.SECONDARY_CAPTURE],
        sop_instance_uid=case.uid("sc-instance", number=number, **pixels_digest(pixels)),
        instance_number=number,
        **case.equipment,
    )
    picture.ConversionType = "WSD"  # made by a workstation; highdicom writes "digital interface"
    picture.ImageType = ["DERIVED", "SECONDARY"]
    picture.DateOfSecondaryCapture = picture.ContentDate
    picture.TimeOfSecondaryCapture = picture.ContentTime
    picture.BurnedInAnnotation = "YES"
    picture.RecognizableVisualFeatures = "NO"
    picture.LossyImageCompression = "00"
    # Without a body part dciodvfy asks for Laterality, which an unpaired organ does not have.
    picture.BodyPartExamined = "BRAIN"
    picture.DerivationDescription = "T2 with rated crops and Grad-CAM saliency, research use only"
    picture.SourceImageSequence = [
        _source_item(image.sop_class_uid, image.sop_instance_uid)
        for image in case.source.images
        if image.sop_instance_uid in source_uids
    ]
    return finish(picture, ObjectKind.SECONDARY_CAPTURE, case)


def _source_item(class_uid: str, instance_uid: str) -> Dataset:
    purpose = Dataset()
    purpose.CodeValue = codes.SOURCE_IMAGE_FOR_PROCESSING.value
    purpose.CodingSchemeDesignator = codes.SOURCE_IMAGE_FOR_PROCESSING.scheme_designator
    purpose.CodeMeaning = codes.SOURCE_IMAGE_FOR_PROCESSING.meaning
    item = reference(class_uid, instance_uid)
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item
