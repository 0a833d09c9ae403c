"""Pictures as DICOM Secondary Capture, the object class that every PACS displays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sc import SCImage
from pydicom.dataset import Dataset

from core.results import Level, ObjectKind, ReportObject
from worker.grading.stages.report import codes
from worker.grading.stages.report.objects import (
    SERIES_NUMBER,
    describe_image,
    pixels_digest,
    reference,
    write_object,
)
from worker.grading.stages.report.overlay import RGBArray, edge_letters
from worker.grading.stages.report.pictures import render_slice, render_summary

if TYPE_CHECKING:
    from worker.grading.stages.report.context import GradedContext


def build_secondary_captures(context: GradedContext) -> tuple[ReportObject, ...]:
    """Build the series: the summary, then one picture per graded slice, inferior to superior."""
    shown = (context.volume, context.grade, context.saliency)
    graded = {image.crop.sop_instance_uid for image in context.grade.images}
    header = context.source.patient_and_study
    summary = render_summary(
        *shown, study_date=str(header.StudyDate), accession_number=str(header.AccessionNumber)
    )
    pages = [(summary, graded)]
    for level in Level:
        uids = {i.crop.sop_instance_uid for i in context.grade.images if i.crop.level is level}
        pages.append((render_slice(*shown, level), uids))
    return tuple(
        _build(context, number, pixels, uids) for number, (pixels, uids) in enumerate(pages, 1)
    )


def _build(
    context: GradedContext, number: int, pixels: RGBArray, source_uids: set[str]
) -> ReportObject:
    picture = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=edge_letters(context.volume.series),
        study_instance_uid=context.study.study_uid,
        series_instance_uid=context.uid("sc-series"),
        series_number=SERIES_NUMBER[ObjectKind.SECONDARY_CAPTURE],
        sop_instance_uid=context.uid("sc-instance", number=number, **pixels_digest(pixels)),
        instance_number=number,
        **context.equipment,
    )
    picture.ConversionType = "WSD"  # workstation; highdicom writes "digital interface"
    picture.ImageType = ["DERIVED", "SECONDARY"]
    picture.DateOfSecondaryCapture = picture.ContentDate
    picture.TimeOfSecondaryCapture = picture.ContentTime
    picture.BurnedInAnnotation = "YES"
    picture.RecognizableVisualFeatures = "NO"
    picture.LossyImageCompression = "00"
    # Without a body part dciodvfy requires Laterality, which an unpaired organ does not have.
    picture.BodyPartExamined = "BRAIN"
    picture.DerivationDescription = describe_image(
        "T2 with rated crops and Grad-CAM saliency", context
    )
    picture.ImageComments = context.intended_use.statement  # burned in, and here as text
    picture.SourceImageSequence = [
        _source_item(image.sop_class_uid, image.sop_instance_uid)
        for image in context.source.images
        if image.sop_instance_uid in source_uids
    ]
    return write_object(picture, ObjectKind.SECONDARY_CAPTURE, context)


def _source_item(class_uid: str, instance_uid: str) -> Dataset:
    purpose = Dataset()
    purpose.CodeValue = codes.SOURCE_IMAGE_FOR_PROCESSING.value
    purpose.CodingSchemeDesignator = codes.SOURCE_IMAGE_FOR_PROCESSING.scheme_designator
    purpose.CodeMeaning = codes.SOURCE_IMAGE_FOR_PROCESSING.meaning
    item = reference(class_uid, instance_uid)
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item
