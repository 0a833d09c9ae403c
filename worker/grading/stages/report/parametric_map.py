"""Saliency as a DICOM Parametric Map on the grid of the scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk
from highdicom import (
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
    VOILUTTransformation,
)
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from core.results import ObjectKind, ReportObject
from core.uids import derived_uid
from worker.grading.stages.report import codes
from worker.grading.stages.report.objects import (
    SERIES_NUMBER,
    describe_image,
    pixels_digest,
    reference,
    write_object,
)
from worker.grading.stages.report.overlay import SALIENCY_MAXIMUM

if TYPE_CHECKING:
    from worker.grading.records import SliceLocation
    from worker.grading.stages.report.context import GradedContext

_STEPS_PER_UNIT: Final = 1000
"""Stored as integers, because more viewers read Pixel Data than Float Pixel Data."""


def build_parametric_map(context: GradedContext) -> ReportObject:
    """Build the map: uint16 in steps of a thousandth of a Grad-CAM unit, one frame per slice."""
    series = context.volume.series
    saliency = sitk.GetArrayViewFromImage(context.saliency.image)
    stored = np.round(np.clip(saliency, 0, SALIENCY_MAXIMUM) * _STEPS_PER_UNIT).astype(np.uint16)
    maximum = int(SALIENCY_MAXIMUM * _STEPS_PER_UNIT)
    dataset = ParametricMap(
        source_images=[_header(context, location) for location in context.volume.slices],
        pixel_array=stored,
        plane_positions=[
            PlanePositionSequence("PATIENT", location.position_mm)
            for location in context.volume.slices
        ],
        plane_orientation=PlaneOrientationSequence("PATIENT", series.orientation),
        pixel_measures=PixelMeasuresSequence(
            pixel_spacing=series.pixel_spacing_mm,
            slice_thickness=series.slice_spacing_mm,
            spacing_between_slices=series.slice_spacing_mm,
        ),
        series_instance_uid=context.uid("pm-series"),
        series_number=SERIES_NUMBER[ObjectKind.PARAMETRIC_MAP],
        sop_instance_uid=context.uid("pm-instance", **pixels_digest(stored)),
        instance_number=1,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label="GRADCAM_0_10",
                lut_explanation="Grad-CAM inside the brain; 10 = its maximum in this scan",
                unit=codes.NO_UNITS,
                value_range=(0, maximum),
                slope=1 / _STEPS_PER_UNIT,
                intercept=0.0,
                quantity_definition=codes.GRAD_CAM,
            )
        ],
        voi_lut_transformations=[
            VOILUTTransformation(window_center=maximum / 2, window_width=maximum)
        ],
        content_label="GRADCAM",
        content_description=describe_image("Grad-CAM saliency", context),
        content_qualification="RESEARCH" if context.intended_use.research_only else "PRODUCT",
        image_flavor="VOLUME",
        derived_pixel_contrast="NONE",
        **context.equipment,
    )
    # Without a body part dciodvfy requires Laterality, which an unpaired organ does not have.
    dataset.BodyPartExamined = "BRAIN"
    organization = context.uid("pm-dimensions")  # highdicom generates a random one
    _name_sources(dataset, context)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    return write_object(dataset, ObjectKind.PARAMETRIC_MAP, context)


def _stand_in_uid(location: SliceLocation) -> str:
    """Return the UID of a slice as given to highdicom, which knows no frames of an Enhanced MR."""
    if location.frame_number is None:
        return location.sop_instance_uid
    return derived_uid("frame", {"of": location.sop_instance_uid, "number": location.frame_number})


def _name_sources(dataset: Dataset, context: GradedContext) -> None:
    """Replace the stand-in UIDs by references to the actual source instances and frames."""
    locations = {_stand_in_uid(location): location for location in context.volume.slices}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in frame.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                location = locations[item.ReferencedSOPInstanceUID]
                item.ReferencedSOPClassUID = location.sop_class_uid
                item.ReferencedSOPInstanceUID = location.sop_instance_uid
                if location.frame_number is not None:
                    item.ReferencedFrameNumber = location.frame_number
    references = [
        reference(image.sop_class_uid, image.sop_instance_uid) for image in context.source.images
    ]
    dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence = references
    dataset.SourceImageSequence = references


def _header(context: GradedContext, location: SliceLocation) -> Dataset:
    """Build the header of a source slice that highdicom reads: geometry and references only."""
    image = next(
        i for i in context.source.images if i.sop_instance_uid == location.sop_instance_uid
    )
    series = context.volume.series
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, _stand_in_uid(location)
    header.StudyInstanceUID, header.SeriesInstanceUID = series.study_uid, series.series_uid
    header.FrameOfReferenceUID = context.source.frame_of_reference_uid or context.uid(
        "frame-of-reference"
    )
    header.Modality = "MR"
    header.Rows, header.Columns = image.rows, image.columns
    header.ImagePositionPatient = list(location.position_mm)
    header.ImageOrientationPatient = list(series.orientation)
    header.PixelSpacing = list(series.pixel_spacing_mm)
    header.SliceThickness = series.slice_spacing_mm
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(header, keyword, None)
    for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(header, keyword, None)
    return header
