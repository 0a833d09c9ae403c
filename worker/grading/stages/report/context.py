"""Inputs of a report: the study, its result, and the identity, time and equipment of the objects.

Report objects are deterministic: the same inputs give the same bytes, and everything that can
change the bytes enters the UIDs (`core.uids`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from highdicom import ContributingEquipment

from core.uids import derived_uid, digest
from core.version import MANUFACTURER, NAME, VERSION
from worker.grading.stages.report import codes

if TYPE_CHECKING:
    from datetime import datetime

    from pydicom.dataset import Dataset

    from core.reasons import Reason
    from core.results import Grade, IntendedUse, ModelIdentity
    from core.studies import ClosedStudy, SpooledInstance
    from worker.grading.records import SaliencyMap, Source, StudyHeader, Volume

SCHEMA: Final = "epvs-report/4"
"""Version of the objects' layout. It enters every UID: raise it when the layout changes."""

CORNER_DECIMALS: Final = 3
"""Of crop corners, in pixels: finer differences between two registrations are noise."""


@dataclass(frozen=True, slots=True)
class ReportContext(ABC):
    """Inputs that the reports on graded and not graded study revisions have in common.

    Attributes
    ----------
    completed_at : datetime
        Aware; in the time zone in which dates and times are written.
    intended_use : IntendedUse
        Stated by every object that shows a result.
    """

    study: ClosedStudy
    source: StudyHeader
    completed_at: datetime
    station_name: str
    intended_use: IntendedUse

    @property
    @abstractmethod
    def outcome(self) -> dict[str, Any]:
        """Series, source instances and result, in the form in which they enter the UIDs."""

    @property
    def algorithms(self) -> list[Dataset]:
        """Contributing Equipment items of the models behind the result."""
        return []

    @property
    def key(self) -> dict[str, Any]:
        """Key from which every UID of the report is derived."""
        return {
            "schema": SCHEMA,
            "software": VERSION,
            "study": self.study.study_uid,
            "revision": self.study.revision_number,
            "superseded": self.study.superseded_reports,
            "completed_at": self.completed_at.isoformat(),
            "station": self.station_name,
            "intended_use": asdict(self.intended_use),
            **self.outcome,
        }

    def uid(self, role: str, **more: Any) -> str:
        """Derive the UID of one object, series or group of this report."""
        return derived_uid(role, {**self.key, **more})

    @property
    def device_uid(self) -> str:
        """UID of this node as a device."""
        return derived_uid("device", {"name": NAME, "station": self.station_name})

    @property
    def equipment(self) -> dict[str, Any]:
        """Equipment and time arguments that all highdicom constructors share."""
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
class GradedContext(ReportContext):
    """Inputs of the report on a graded study revision."""

    source: Source
    volume: Volume
    grade: Grade
    saliency: SaliencyMap

    @property
    def outcome(self) -> dict[str, Any]:
        """The grade at the precision that the objects show."""
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
        """Contributing Equipment items of both models, with the UIDs of their weights."""
        return [_algorithm(self.grade.rating_model), _algorithm(self.grade.severity_model)]


@dataclass(frozen=True, slots=True)
class NotGradedContext(ReportContext):
    """Inputs of the report on a study revision that was not graded.

    Attributes
    ----------
    reason : Reason
    detail : str
        The figures behind the reason.
    images : tuple of SpooledInstance
        MR images of the series that the reason concerns; empty if it concerns several series or
        none.
    """

    reason: Reason
    detail: str
    images: tuple[SpooledInstance, ...]

    @property
    def outcome(self) -> dict[str, Any]:
        """The reason; every instance of the study is a source."""
        return {
            "series": self.images[0].series_uid if self.images else "",
            "sources": [instance.sop_instance_uid for instance in self.study.instances],
            "result": digest({"not graded": [self.reason, self.detail]}),
        }


def rounded(value: float) -> float:
    """Round to six decimals, as written to DS (at most 16 characters) and used in UIDs."""
    return round(float(value), 6)


def _algorithm(model: ModelIdentity) -> Dataset:
    """Contributing Equipment item of one model; IHE AIR 6.5.3.1 asks for one item each."""
    item = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.PROCESSING_EQUIPMENT,
        manufacturer_model_name=model.display_name,
        software_versions=model.version,
        contribution_description="Image analysis algorithm",
    )
    item.DeviceUID = derived_uid("algorithm", {"name": model.name, "sha256": model.weights_sha256})
    return item
