"""Reporting: the image library of the SR (TID 1600): which images were graded, and their geometry.

Built here because highdicom's `ImageLibrary` needs every descriptor in every header: it cannot
describe a source without Slice Thickness, nor an Enhanced MR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    UIDRefContentItem,
)
from highdicom.sr import RelationshipTypeValues as Relationship

from worker.stages.report import codes

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

    from core.records import SelectedSeries
    from worker.stages.report.source import Source, SourceImage


def image_library(source: Source, series: SelectedSeries) -> ContainerContentItem:
    """List the graded images with TID 1602 and 1604 descriptors, as far as they are known."""
    group = ContainerContentItem(codes.IMAGE_LIBRARY_GROUP, relationship_type=Relationship.CONTAINS)
    group.ContentSequence = ContentSequence(
        [_entry(image, source.frame_of_reference_uid, series) for image in source.images]
    )
    library = ContainerContentItem(codes.IMAGE_LIBRARY, relationship_type=Relationship.CONTAINS)
    library.ContentSequence = ContentSequence([group])
    return library


def _entry(
    image: SourceImage, frame_of_reference_uid: str | None, series: SelectedSeries
) -> ImageContentItem:
    descriptors = ContentSequence(
        [CodeContentItem(codes.MODALITY, codes.MAGNETIC_RESONANCE, Relationship.HAS_ACQ_CONTEXT)]
    )
    if frame_of_reference_uid:
        descriptors.append(
            UIDRefContentItem(
                codes.FRAME_OF_REFERENCE_UID, frame_of_reference_uid, Relationship.HAS_ACQ_CONTEXT
            )
        )
    descriptors.extend(
        NumContentItem(name, value=value, unit=unit, relationship_type=Relationship.HAS_ACQ_CONTEXT)
        for name, value, unit in _numbers(image, series)
    )
    item = ImageContentItem(
        codes.SOURCE,
        referenced_sop_class_uid=image.sop_class_uid,
        referenced_sop_instance_uid=image.sop_instance_uid,
        relationship_type=Relationship.CONTAINS,
    )
    item.ContentSequence = descriptors
    return item


def _numbers(image: SourceImage, series: SelectedSeries) -> list[tuple[Code, float, Code]]:
    """Numeric descriptors in the order of TID 1602 and 1604, which is significant."""
    between_rows, between_columns = series.pixel_spacing_mm
    numbers: list[tuple[Code, float, Code]] = [
        (codes.PIXEL_DATA_ROWS, image.rows, codes.PIXELS),
        (codes.PIXEL_DATA_COLUMNS, image.columns, codes.PIXELS),
        (codes.HORIZONTAL_PIXEL_SPACING, between_columns, codes.MILLIMETRE),
        (codes.VERTICAL_PIXEL_SPACING, between_rows, codes.MILLIMETRE),
    ]
    if image.slice_thickness_mm is not None:
        numbers.append((codes.SLICE_THICKNESS, image.slice_thickness_mm, codes.MILLIMETRE))
    if image.position_mm is not None:
        numbers += [
            (name, value, codes.MILLIMETRE)
            for name, value in zip(codes.IMAGE_POSITION, image.position_mm, strict=True)
        ]
    numbers += [
        (name, value, codes.DIRECTION_COSINE)
        for name, value in zip(codes.IMAGE_ORIENTATION, series.orientation, strict=True)
    ]
    return numbers
