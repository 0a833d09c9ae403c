"""Completes and encodes report objects: patient, study, series and time attributes."""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import pydicom
from pydicom.dataset import Dataset

from core.results import ObjectKind, ReportObject
from core.uids import derived_uid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.results import SRVariant
    from worker.grading.stages.report.context import ReportContext

SERIES_NUMBER: Final = {
    ObjectKind.STRUCTURED_REPORT: 9901,
    ObjectKind.SECONDARY_CAPTURE: 9902,
    ObjectKind.PARAMETRIC_MAP: 9903,
}
SERIES_DESCRIPTION: Final = {
    ObjectKind.STRUCTURED_REPORT: "EPVS grade",
    ObjectKind.SECONDARY_CAPTURE: "EPVS grade and saliency",
    ObjectKind.PARAMETRIC_MAP: "EPVS Grad-CAM",
}


def write_object(
    dataset: Dataset,
    kind: ObjectKind,
    context: ReportContext,
    *,
    description: str | None = None,
    variant: SRVariant | None = None,
) -> ReportObject:
    """Complete a data set with patient, study, series and time, and encode it as a Part 10 file.

    highdicom is given no patient data: it logs unusual names, refuses values that scanners do
    write, and inserts the current time, so that no two builds would be alike.

    Parameters
    ----------
    dataset : Dataset
        With file meta information; changed in place.
    kind : ObjectKind
    context : ReportContext
    description : str, optional
        Series Description; by default that of the kind in `SERIES_DESCRIPTION`.
    variant : SRVariant, optional
        Of an SR.
    """
    date = context.completed_at.strftime("%Y%m%d")
    time = context.completed_at.strftime("%H%M%S")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.SeriesDate, dataset.SeriesTime = date, time
    dataset.SeriesDescription = description or SERIES_DESCRIPTION[kind]
    if context.intended_use.research_only:
        dataset.SeriesDescription += " (RESEARCH USE ONLY)"
    dataset.StationName = context.station_name
    dataset.DeviceUID = context.device_uid
    for item in dataset.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = date + time
    for element in context.source.patient_and_study:
        dataset[element.tag] = element

    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return ReportObject(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        content=buffer.getvalue(),
        variant=variant,
    )


def describe_image(text: str, context: ReportContext) -> str:
    """Return the description of a derived image, marked if it is for research use only."""
    return f"{text}, research use only" if context.intended_use.research_only else text


def reference(class_uid: str, instance_uid: str) -> Dataset:
    """Make an item that refers to one SOP instance."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
    return item


def pixels_digest(pixels: Any) -> Mapping[str, str]:
    """Return the part of a UID's key that stands for pixel data."""
    return {"pixels": hashlib.sha256(pixels.tobytes()).hexdigest()}


def series_uid_of_sr(sr_instance_uid: str) -> str:
    """Series UID of an SR, derived from its instance UID alone.

    Each SR has a series of its own. The next revision refers to its predecessor by study, series
    and instance, and only the instance UID is passed on from one revision to the next.
    """
    return derived_uid("sr-series", {"instance": sr_instance_uid})
