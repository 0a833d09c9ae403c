"""Reporting: what all objects of a report have in common: identity, time, equipment.

An object is a function of the report's inputs: the same inputs give the same bytes, and whatever
may change the bytes enters the UID (`core.uids`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import pydicom
from highdicom import ContributingEquipment
from pydicom.dataset import Dataset

from core.results import Grade, ModelIdentity, ObjectKind, ReportObject
from core.uids import derived_uid, digest
from core.version import MANUFACTURER, NAME, VERSION
from worker.grading.stages.report import codes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from core.reasons import Reason
    from core.studies import ClosedStudy, SpooledInstance
    from worker.grading.records import SaliencyMap, Volume
    from worker.grading.stages.report.source import Source, StudyHeader

SCHEMA: Final = "epvs-report/3"
"""Raise it when the layout of the objects changes: it enters every UID."""

SERIES_NUMBER: Final = {
    ObjectKind.STRUCTURED_REPORT: 9901,
    ObjectKind.SECONDARY_CAPTURE: 9902,
    ObjectKind.PARAMETRIC_MAP: 9903,
}
SERIES_DESCRIPTION: Final = {
    ObjectKind.STRUCTURED_REPORT: "EPVS grade (RESEARCH USE ONLY)",
    ObjectKind.SECONDARY_CAPTURE: "EPVS grade and saliency (RESEARCH USE ONLY)",
    ObjectKind.PARAMETRIC_MAP: "EPVS Grad-CAM (RESEARCH USE ONLY)",
}
CORNER_DECIMALS: Final = 3
"""Of crop corners in pixels: finer differences between two registrations are noise."""


@dataclass(frozen=True, slots=True)
class BaseCase(ABC):
    """One study revision to report on: what a graded and a rejected one have in common.

    Attributes
    ----------
    completed_at : datetime
        Aware; in the time zone that dates and times are written in.
    """

    study: ClosedStudy
    source: StudyHeader
    completed_at: datetime
    station_name: str

    @property
    @abstractmethod
    def outcome(self) -> dict[str, Any]:
        """Series, source instances and result, as they enter the UIDs."""

    @property
    def algorithms(self) -> list[Dataset]:
        """Contributing Equipment items of the models behind the result."""
        return []

    @property
    def key(self) -> dict[str, Any]:
        """What identifies this result; every UID of the report is derived from it."""
        return {
            "schema": SCHEMA,
            "software": VERSION,
            "study": self.study.study_uid,
            "revision": self.study.revision_number,
            "superseded": self.study.superseded_reports,
            "completed_at": self.completed_at.isoformat(),
            "station": self.station_name,
            **self.outcome,
        }

    def uid(self, role: str, **more: Any) -> str:
        """UID of one thing in this report."""
        return derived_uid(role, {**self.key, **more})

    @property
    def device_uid(self) -> str:
        """UID of this node as a device."""
        return derived_uid("device", {"name": NAME, "station": self.station_name})

    @property
    def equipment(self) -> dict[str, Any]:
        """General Equipment, series and time arguments of a highdicom constructor."""
        return {
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": NAME,
            "software_versions": VERSION,
            "device_serial_number": self.station_name,
            "content_date": self.completed_at.date(),
            "content_time": self.completed_at.time().replace(microsecond=0),
            "contributing_equipment": self.algorithms,
        }


@dataclass(frozen=True, slots=True)
class Case(BaseCase):
    """One graded study revision: everything that the objects are made of."""

    source: Source
    volume: Volume
    grade: Grade
    saliency: SaliencyMap

    @property
    def outcome(self) -> dict[str, Any]:
        """The grade, as far as the objects show it."""
        grade = asdict(self.grade)
        for image in grade["images"]:
            image["probability"] = rounded(image["probability"])
            image["crop"]["corners_px"] = [
                [round(value, CORNER_DECIMALS) for value in corner]
                for corner in image["crop"]["corners_px"]
            ]
        grade["confidence"] = rounded(self.grade.confidence)
        grade["severity_probability"] = rounded(self.grade.severity_probability)
        statistics = self.saliency.statistics
        saliency = (
            statistics.mean,
            statistics.skewness,
            statistics.share_above_7,
            statistics.share_in_basal_ganglia,
        )
        return {
            "series": self.volume.series.series_uid,
            "sources": [image.sop_instance_uid for image in self.source.images],
            "result": digest([grade, [str(rounded(value)) for value in saliency]]),
        }

    @property
    def algorithms(self) -> list[Dataset]:
        """Both models, with the UIDs of their weights."""
        return [_algorithm(self.grade.rating_model), _algorithm(self.grade.severity_model)]


@dataclass(frozen=True, slots=True)
class RejectedCase(BaseCase):
    """One study revision that was not graded, and why.

    Attributes
    ----------
    reason : Reason
    detail : str
        The figures behind the reason.
    images : tuple of SpooledInstance
        Those of the one series that the reason is about; empty where it is about several, or
        about something else than MR images.
    """

    reason: Reason
    detail: str
    images: tuple[SpooledInstance, ...]

    @property
    def outcome(self) -> dict[str, Any]:
        """The reason; the source is all that was received of the study."""
        return {
            "series": self.images[0].series_uid if self.images else "",
            "sources": [instance.sop_instance_uid for instance in self.study.instances],
            "result": digest({"not graded": [self.reason, self.detail]}),
        }


def rounded(value: float) -> float:
    """Six decimals: what is written into DS (at most 16 characters) and into UIDs."""
    return round(float(value), 6)


def _algorithm(model: ModelIdentity) -> Dataset:
    """Contributing Equipment item of one algorithm, one each as IHE AIR 6.5.3.1 asks."""
    item = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.PROCESSING_EQUIPMENT,
        manufacturer_model_name=model.display_name,
        software_versions=model.version,
        contribution_description="Image analysis algorithm",
    )
    item.DeviceUID = derived_uid("algorithm", {"name": model.name, "sha256": model.weights_sha256})
    return item


def finish(
    dataset: Dataset, kind: ObjectKind, case: BaseCase, description: str | None = None
) -> ReportObject:
    """Complete an object with patient, study, series and time, and write it.

    highdicom is given no patient data: it logs names that it finds odd, refuses values that
    scanners do write, and stamps the current time, which would make every build differ.

    Parameters
    ----------
    dataset : Dataset
        With file meta information; changed in place.
    kind : ObjectKind
    case : BaseCase
    description : str, optional
        Series Description; by default what `SERIES_DESCRIPTION` says of this kind.
    """
    date = case.completed_at.strftime("%Y%m%d")
    time = case.completed_at.strftime("%H%M%S")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.SeriesDate, dataset.SeriesTime = date, time
    dataset.SeriesDescription = description or SERIES_DESCRIPTION[kind]
    dataset.StationName = case.station_name
    dataset.DeviceUID = case.device_uid
    for item in dataset.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = date + time
    for element in case.source.patient_and_study:
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
    )


def reference(class_uid: str, instance_uid: str) -> Dataset:
    """Make an item that refers to one SOP instance."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
    return item


def pixels_digest(pixels: Any) -> Mapping[str, str]:
    """Describe pixel data for a UID's key."""
    return {"pixels": hashlib.sha256(pixels.tobytes()).hexdigest()}


def series_uid_of_report(sr_instance_uid: str) -> str:
    """Series UID of an SR, known from its instance UID alone.

    Each SR is the only one of its series. The next revision names its predecessor by study, series
    and instance, and only the instance UID is handed on from one revision to the next.
    """
    return derived_uid("sr-series", {"instance": sr_instance_uid})
