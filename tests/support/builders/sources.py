"""Small T2 series as scanners store them, and the records from which their reports are built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    EncapsulatedPDFStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from core.reasons import Reason
from core.results import (
    Crop,
    Grade,
    ImageRating,
    IntendedUse,
    Level,
    ModelIdentity,
    NotGradedStudy,
    ObjectKind,
    Report,
    SaliencyStatistics,
    SeriesVerdict,
    Severity,
    Side,
    SRClass,
    SRVariant,
)
from core.studies import ClosedStudy, SpooledInstance
from core.uids import derived_uid
from tests.support.builders.series_files import closed_study
from tests.support.paths import SAMPLE_DATA
from worker.grading.reading.source import read_source, read_study_header
from worker.grading.records import RatingInput, SaliencyMap, SelectedSeries, SliceLocation, Volume
from worker.grading.stages.assembly import read_volume
from worker.grading.stages.rating import prepare_rating
from worker.grading.stages.registration import register
from worker.grading.stages.report import build_not_graded_report, build_report
from worker.grading.stages.selection import select_series
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SLICES, ROWS, COLUMNS = 6, 96, 80
SPACING: Final = (2.0, 2.2)
"""Between rows, between columns: not square, so that a distorted picture is detected."""
SLICE_SPACING: Final = 5.0
COMPLETED_AT: Final = datetime(2026, 3, 2, 11, 5, 33, 250000, tzinfo=UTC)
INTENDED_USE: Final = IntendedUse("Research use only; made up for a test.", research_only=True)
ORIENTATION: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def uid(name: str, number: int = 0) -> str:
    return derived_uid("test", {"name": name, "number": number})


def pixels() -> np.ndarray:
    """A head: dark air, bright scalp ring, grey brain, white ventricles; (slice, row, column)."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    radius = np.hypot((rows - 48) / 40, (columns - 40) / 30)
    head = np.where(radius < 1, 400, 8) + np.where(abs(radius - 0.95) < 0.05, 300, 0)
    ventricles = np.hypot((rows - 44) / 10, (abs(columns - 40) - 4) / 3) < 1
    return np.stack([np.where(ventricles, 1100, head)] * SLICES).astype(np.uint16)


def classic(folder: Path, edit: Callable[[Dataset], None] = lambda ds: None) -> Volume:
    """Write a classic MR series and return it as a volume; `edit` changes each header."""
    locations = []
    for number in range(SLICES):
        ds = _header("classic")
        ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, uid("classic-instance", number)
        ds.InstanceNumber = number + 1
        ds.ImagePositionPatient = list(_position(number))
        ds.ImageOrientationPatient = list(ORIENTATION)
        ds.PixelSpacing = list(SPACING)
        ds.SliceThickness, ds.SpacingBetweenSlices = 4, SLICE_SPACING
        ds.ScanningSequence, ds.SequenceVariant, ds.MRAcquisitionType = "SE", "SK", "2D"
        ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = 4500, 100, 15
        ds.PixelData = pixels()[number].tobytes()
        edit(ds)
        path = folder / f"{number:03}.dcm"
        _write(ds, path)
        locations.append(
            SliceLocation(path, ds.SOPInstanceUID, MRImageStorage, None, _position(number))
        )
    return _volume("classic", locations)


def enhanced(folder: Path) -> Volume:
    """Write one Enhanced MR instance and return it as a volume."""
    ds = _header("enhanced")
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedMRImageStorage, uid("enhanced-instance")
    ds.NumberOfFrames = SLICES
    measures = Dataset()
    measures.SliceThickness, measures.PixelSpacing = 4, list(SPACING)
    orientation = Dataset()
    orientation.ImageOrientationPatient = list(ORIENTATION)
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number in range(SLICES):
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = list(_position(number))
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    ds.PixelData = pixels().tobytes()
    path = folder / "enhanced.dcm"
    _write(ds, path)
    locations = [
        SliceLocation(path, ds.SOPInstanceUID, EnhancedMRImageStorage, n + 1, _position(n))
        for n in range(SLICES)
    ]
    return _volume("enhanced", locations)


@dataclass(frozen=True)
class Inputs:
    """Arguments of `build_report`, of which tests replace some."""

    study: ClosedStudy
    volume: Volume
    grade: Grade
    saliency: SaliencyMap

    def build(
        self,
        sr_class: SRClass = SRClass.COMPREHENSIVE,
        *,
        parametric_map: bool = False,
        **options: Any,
    ) -> Report:
        """Build the report with one variant of the SR, unless `options` contains several."""
        placements = tuple(image.crop for image in self.grade.images)
        arguments: dict[str, Any] = {
            "study": self.study,
            "volume": self.volume,
            "source": read_source(self.volume.series),
            "rating_input": RatingInput(np.zeros((6, 1, 112, 86), np.float32), placements),
            "grade": self.grade,
            "saliency": self.saliency,
            "variants": [SRVariant(sr_class, parametric_map)],
            "completed_at": COMPLETED_AT,
            "station_name": "epvs-test",
        }
        return build_report(**{**arguments, **options})


def refused(
    series_uid: str,
    reason: Reason = Reason.NOT_A_T2_BRAIN,
    detail: str = "correlation over the brain 0.12 (at least 0.35 needed)",
) -> NotGradedStudy:
    """Return the result of a study with a localizer and one unsuitable series."""
    return NotGradedStudy(
        "00000000-0000-0000-0000-000000000001",
        reason,
        detail,
        (
            SeriesVerdict(series_uid, reason, detail, SLICES),
            SeriesVerdict(uid("other-series"), Reason.LOCALIZER, "slices 15 mm thick", 3),
        ),
    )


def not_graded(
    study: ClosedStudy,
    result: NotGradedStudy,
    sr_class: SRClass = SRClass.COMPREHENSIVE,
    **options: Any,
) -> Report:
    """The report on a study that was not graded."""
    arguments: dict[str, Any] = {
        "variants": [SRVariant(sr_class, parametric_map=False)],
        "intended_use": INTENDED_USE,
        "completed_at": COMPLETED_AT,
        "station_name": "epvs-test",
    }
    header = read_study_header(study)
    return build_not_graded_report(
        study=study, header=header, result=result, **{**arguments, **options}
    )


def without_images(folder: Path) -> ClosedStudy:
    """Write a study of one document with few attributes and one file that is not DICOM."""
    (folder / "broken.dcm").write_bytes(b"no DICOM")
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = EncapsulatedPDFStorage, uid("document")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), uid("documents")
    ds.PatientID = "CANARY-17"
    _write(ds, folder / "document.dcm")
    return ClosedStudy(
        study_uid=uid("study"),
        revision_id="00000000-0000-0000-0000-000000000002",
        revision_number=1,
        instances=(
            SpooledInstance(folder / "broken.dcm", "1.2.3.1", MRImageStorage, "1.2.3"),
            SpooledInstance(
                folder / "document.dcm",
                str(ds.SOPInstanceUID),
                EncapsulatedPDFStorage,
                str(ds.SeriesInstanceUID),
            ),
        ),
    )


def sample_studies() -> dict[str, ClosedStudy]:
    """Return the studies of the sample data that are not graded, by folder and UID."""
    found: dict[str, ClosedStudy] = {}
    for path in sorted(path for path in SAMPLE_DATA.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            study_uid = str(header.StudyInstanceUID)
            instance = SpooledInstance(
                path,
                str(header.SOPInstanceUID),
                str(header.SOPClassUID),
                str(header.SeriesInstanceUID),
            )
        except (InvalidDicomError, AttributeError):  # the receiver would refuse these
            continue
        name = f"{path.parent.relative_to(SAMPLE_DATA)} {study_uid}"
        known = found.get(name, ClosedStudy(study_uid, "sample", 1, ()))
        found[name] = replace(known, instances=(*known.instances, instance))
    return {name: study for name, study in found.items() if "study-brain" not in name}


def inputs(volume: Volume, ratings: Sequence[int] = (1, 2, 1, 3, 1, 2), p: float = 0.87) -> Inputs:
    """Build the records of a graded study: crops of 40 × 52 mm beside the midline."""
    instances = {location.sop_instance_uid: location for location in volume.slices}
    study = ClosedStudy(
        study_uid=volume.series.study_uid,
        revision_id="00000000-0000-0000-0000-000000000001",
        revision_number=1,
        instances=tuple(
            SpooledInstance(location.path, name, location.sop_class_uid, volume.series.series_uid)
            for name, location in instances.items()
        ),
    )
    return Inputs(study, volume, grade(volume, ratings, p), saliency(volume))


def sample_study() -> Inputs:
    """Build the records of the sample study: crops from the pipeline, made-up ratings."""
    study = closed_study(SAMPLE_DATA / "study-brain-siemens")
    volume = read_volume(select_series(study).require_series())
    placed = prepare_rating(volume, register(volume, load_template(), threads=1))
    by_hand = inputs(volume)
    images = tuple(
        replace(image, crop=crop)
        for image, crop in zip(by_hand.grade.images, placed.placements, strict=True)
    )
    return replace(by_hand, study=study, grade=replace(by_hand.grade, images=images))


def grade(volume: Volume, ratings: Sequence[int], p: float) -> Grade:
    middle = len(volume.slices) // 2
    places = [(level, side) for level in Level for side in Side]
    images = tuple(
        ImageRating(_crop(volume, level, side, middle + list(Level).index(level)), rating, 0.8)
        for (level, side), rating in zip(places, ratings, strict=True)
    )
    severe = p >= 0.5
    return Grade(
        images=images,
        rating=max(ratings),
        majority_rating=max(sorted(set(ratings)), key=list(ratings).count),
        confidence=0.8,
        severity=Severity.MODERATE_TO_SEVERE if severe else Severity.NONE_TO_MILD,
        severity_probability=p,
        models_agree=(max(ratings) >= 2) == severe,
        rating_model=_model("rating", "EPVS rating, 2-D CNN"),
        severity_model=_model("severity", "EPVS severity, 3-D ResNet"),
    )


def saliency(volume: Volume) -> SaliencyMap:
    """Two blobs, the stronger on the patient's left."""
    size = volume.image.GetSize()
    k, r, c = np.mgrid[: size[2], : size[1], : size[0]] / np.array(size[::-1]).reshape(3, 1, 1, 1)

    def blob(column: float) -> np.ndarray:
        return np.exp(
            -(((k - 0.55) / 0.2) ** 2 + ((r - 0.48) / 0.06) ** 2 + ((c - column) / 0.05) ** 2)
        )

    field = (9.6 * blob(0.63) + 6 * blob(0.37)).astype(np.float32)
    image = sitk.GetImageFromArray(field)
    image.CopyInformation(volume.image)
    return SaliencyMap(image, SaliencyStatistics(0.412345678, 3.2, 0.0123, 0.41))


def superseding(given: Inputs, previous: Report) -> Inputs:
    """Return the next revision of a study, which supersedes the SRs of `previous`."""
    superseded = tuple(
        (item.sop_class_uid, item.sop_instance_uid)
        for item in previous.objects
        if item.kind is ObjectKind.STRUCTURED_REPORT
    )
    study = replace(
        given.study,
        revision_number=given.study.revision_number + 1,
        superseded_reports=superseded,
    )
    return replace(given, study=study)


def _header(name: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.StudyDate, ds.StudyTime = "20260302", "101500"
    ds.AccessionNumber, ds.StudyID = "ACC0001", "1"
    ds.Modality, ds.Manufacturer = "MR", "SynthMR"
    ds.ReferringPhysicianName, ds.StudyDescription = "Ref^Doc", "MR BRAIN"
    ds.PatientName, ds.PatientID = "Canary^Patient", "CANARY-17"
    ds.PatientBirthDate, ds.PatientSex = "19500101", "F"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), uid(name)
    ds.SeriesNumber = 3
    ds.FrameOfReferenceUID = uid("frame-of-reference")
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = ROWS, COLUMNS
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    return ds


def _position(number: int) -> tuple[float, float, float]:
    return (-COLUMNS / 2 * SPACING[1], -ROWS / 2 * SPACING[0], -30.0 + SLICE_SPACING * number)


def _write(ds: Dataset, path: Path) -> None:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


def _volume(name: str, locations: Sequence[SliceLocation]) -> Volume:
    image = sitk.GetImageFromArray(pixels().astype(np.float32))
    image.SetSpacing((SPACING[1], SPACING[0], SLICE_SPACING))
    image.SetOrigin(_position(0))
    series = SelectedSeries(
        study_uid=uid("study"),
        series_uid=uid(name),
        slices=tuple(locations),
        orientation=ORIENTATION,
        pixel_spacing_mm=SPACING,
        slice_spacing_mm=SLICE_SPACING,
    )
    return Volume(image, series)


def _crop(volume: Volume, level: Level, side: Side, k: int) -> Crop:
    columns, rows, _ = volume.image.GetSize()
    width, height = (40 / volume.image.GetSpacing()[0], 52 / volume.image.GetSpacing()[1])
    inner = 2 / volume.image.GetSpacing()[0]
    # The patient's left lies at the higher columns of a standard axial slice.
    left = columns / 2 + inner if side is Side.LEFT else columns / 2 - inner - width
    upper = rows * 0.47 - height / 2
    corners = (
        (left, upper),
        (left + width, upper),
        (left + width, upper + height),
        (left, upper + height),
    )
    location = volume.slices[k]
    return Crop(level, side, k, location.sop_instance_uid, location.frame_number, corners)


def _model(name: str, display_name: str) -> ModelIdentity:
    return ModelIdentity(
        name, "1", name[:1].encode().hex() * 32, display_name, "synthetic", INTENDED_USE
    )
