"""Image library of the SR (TID 1600): the graded images and their geometry.

Built here because highdicom's `ImageLibrary` requires every descriptor in every header: it cannot
describe a source without Slice Thickness, nor an Enhanced MR, and it repeats for every image the
descriptors that the template allows once for the group.
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

from worker.grading.stages.report import codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from highdicom.sr import ContentItem
    from pydicom.sr.coding import Code

    from core.studies import SpooledInstance
    from worker.grading.records import SelectedSeries, Source, SourceImage


def image_library(source: Source, series: SelectedSeries) -> ContainerContentItem:
    """List the graded images with the TID 1602 and 1604 descriptors that are known.

    All images belong to one series, so that every descriptor but the position is given once, for
    the group.
    """
    return _library([*_shared(source, series), *(_entry(image) for image in source.images)])


def plain_image_library(images: Sequence[SpooledInstance]) -> ContainerContentItem:
    """List the MR images of one series without their geometry, which may be faulty."""
    return _library(
        [
            CodeContentItem(codes.MODALITY, codes.MAGNETIC_RESONANCE, Relationship.HAS_ACQ_CONTEXT),
            *(_reference(image.sop_class_uid, image.sop_instance_uid) for image in images),
        ]
    )


def _library(items: Sequence[ContentItem]) -> ContainerContentItem:
    """Build the library with one group: descriptors of all its images, then the images."""
    group = ContainerContentItem(codes.IMAGE_LIBRARY_GROUP, relationship_type=Relationship.CONTAINS)
    group.ContentSequence = ContentSequence(items)
    library = ContainerContentItem(codes.IMAGE_LIBRARY, relationship_type=Relationship.CONTAINS)
    library.ContentSequence = ContentSequence([group])
    return library


def _shared(
    source: Source, series: SelectedSeries
) -> list[CodeContentItem | UIDRefContentItem | NumContentItem]:
    """Return the descriptors of the group in the order of TID 1602 and 1604."""
    items: list[CodeContentItem | UIDRefContentItem | NumContentItem] = [
        CodeContentItem(codes.MODALITY, codes.MAGNETIC_RESONANCE, Relationship.HAS_ACQ_CONTEXT)
    ]
    if source.frame_of_reference_uid:
        items.append(
            UIDRefContentItem(
                codes.FRAME_OF_REFERENCE_UID,
                source.frame_of_reference_uid,
                Relationship.HAS_ACQ_CONTEXT,
            )
        )
    first = source.images[0]
    between_rows, between_columns = series.pixel_spacing_mm
    items += [
        _number(codes.PIXEL_DATA_ROWS, first.rows, codes.PIXELS),
        _number(codes.PIXEL_DATA_COLUMNS, first.columns, codes.PIXELS),
        _number(codes.HORIZONTAL_PIXEL_SPACING, between_columns, codes.MILLIMETRE),
        _number(codes.VERTICAL_PIXEL_SPACING, between_rows, codes.MILLIMETRE),
    ]
    if first.slice_thickness_mm is not None:
        items.append(_number(codes.SLICE_THICKNESS, first.slice_thickness_mm, codes.MILLIMETRE))
    items += [
        _number(name, value, codes.DIRECTION_COSINE)
        for name, value in zip(codes.IMAGE_ORIENTATION, series.orientation, strict=True)
    ]
    return items


def _entry(image: SourceImage) -> ImageContentItem:
    item = _reference(image.sop_class_uid, image.sop_instance_uid)
    if image.position_mm is not None:
        item.ContentSequence = ContentSequence(
            [
                _number(name, value, codes.MILLIMETRE)
                for name, value in zip(codes.IMAGE_POSITION, image.position_mm, strict=True)
            ]
        )
    return item


def _reference(class_uid: str, instance_uid: str) -> ImageContentItem:
    return ImageContentItem(
        codes.SOURCE,
        referenced_sop_class_uid=class_uid,
        referenced_sop_instance_uid=instance_uid,
        relationship_type=Relationship.CONTAINS,
    )


def _number(name: Code, value: float, unit: Code) -> NumContentItem:
    return NumContentItem(
        name, value=value, unit=unit, relationship_type=Relationship.HAS_ACQ_CONTEXT
    )
