"""Synthetic MR series as DICOM files, classic and Enhanced, for the stages that read files."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from core.studies import ClosedStudy, SpooledInstance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from worker.grading.records import Float32Array

STUDY_UID = "2.25.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.99619, 0.0, 0.08716, -0.01513, 0.98481, 0.17299)
"""Tilted by 5° and 10°, as planned along the commissures; rounded as headers are."""

_MOVED_TO_GROUPS = (
    "ScanningSequence",
    "SequenceVariant",
    "SequenceName",
    "EchoTime",
    "RepetitionTime",
    "EchoNumbers",
    "EchoTrainLength",
    "SliceThickness",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
)


def stored_values(
    n_slices: int, rows: int = 40, columns: int = 32, dtype: str = "<u2"
) -> NDArray[Any]:
    """Pixel values that identify slice, row and column: ``2000·slice + 40·row + column``."""
    k, row, column = np.indices((n_slices, rows, columns))
    return (2000 * k + 40 * row + column).astype(dtype)


def t2_slices(
    n_slices: int = 20,
    *,
    series_uid: str = "2.25.2",
    orientation: Sequence[float] = AXIAL,
    spacing_mm: float = 4.0,
    **attributes: Any,
) -> list[Dataset]:
    """Classic MR slices of an axial T2 TSE from inferior to superior; `attributes` override."""
    row, column = np.array(orientation, float).reshape(2, 3)
    normal = np.cross(row, column)
    normal *= np.sign(normal[2]) / np.linalg.norm(normal)
    pixels = stored_values(n_slices)
    slices = []
    for k in range(n_slices):
        position = np.array([-10.0, -12.0, -30.0]) + k * spacing_mm * normal
        ds = Dataset()
        ds.SOPClassUID = MRImageStorage
        ds.SOPInstanceUID = f"{series_uid}.{k + 1}"
        ds.StudyInstanceUID = STUDY_UID
        ds.SeriesInstanceUID = series_uid
        ds.Modality = "MR"
        ds.PatientName = "Okapi^Test"
        ds.PatientID = "OKAPI-1"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        ds.ScanningSequence = "SE"
        ds.SequenceVariant = "SK"
        ds.SequenceName = "*tse2d1_19"
        ds.MRAcquisitionType = "2D"
        ds.EchoTime, ds.RepetitionTime, ds.EchoNumbers = 91, 5000, 1
        ds.EchoTrainLength = 19
        ds.InstanceNumber = k + 1
        ds.SliceThickness = spacing_mm
        ds.ImageOrientationPatient = list(orientation)
        ds.ImagePositionPatient = [round(float(x), 4) for x in position]
        ds.PixelSpacing = [0.9, 0.8]
        ds.Rows, ds.Columns = pixels.shape[1:]
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.PixelData = pixels[k].tobytes()
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        slices.append(ds)
    return slices


def enhanced(slices: Sequence[Dataset]) -> Dataset:
    """Pack classic slices into one Enhanced MR instance, its geometry in functional groups."""
    first = slices[0]
    ds = deepcopy(first)
    ds.SOPClassUID = EnhancedMRImageStorage
    for keyword in _MOVED_TO_GROUPS:
        if keyword in ds:
            delattr(ds, keyword)
    ds.NumberOfFrames = len(slices)
    ds.EchoPulseSequence, ds.EchoPlanarPulseSequence = "SPIN", "NO"
    ds.PulseSequenceName = "*tse2d1_19"
    ds.PixelData = b"".join(item.PixelData for item in slices)

    shared = Dataset()
    shared.MRImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", "T2", "NONE"])]
    shared.MRTimingAndRelatedParametersSequence = [
        _item(RepetitionTime=first.RepetitionTime, EchoTrainLength=19)
    ]
    shared.MREchoSequence = [_item(EffectiveEchoTime=float(first.EchoTime))]
    shared.MRModifierSequence = [_item(InversionRecovery="NO")]
    shared.PixelMeasuresSequence = [
        _item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)
    ]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=first.ImageOrientationPatient)]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for item in slices:
        group = Dataset()
        group.PlanePositionSequence = [_item(ImagePositionPatient=item.ImagePositionPatient)]
        if "RescaleSlope" in item:
            group.PixelValueTransformationSequence = [
                _item(RescaleSlope=item.RescaleSlope, RescaleIntercept=item.RescaleIntercept)
            ]
        ds.PerFrameFunctionalGroupsSequence.append(group)
    return ds


def write(folder: Path, datasets: Iterable[Dataset], syntax: str = ExplicitVRLittleEndian) -> None:
    """Write data sets as Part 10 files, in the transfer syntax given."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, original in enumerate(datasets, start=1):
        ds = deepcopy(original)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.3.{number}")
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()
            ds["PixelData"].VR = "OW"
        if syntax.startswith("1.2.840.10008.1.2.4") or syntax == "1.2.840.10008.1.2.5":
            ds.compress(syntax, generate_instance_uid=False)
        ds.file_meta.TransferSyntaxUID = UID(syntax)
        ds.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)


def closed_study(*folders: Path) -> ClosedStudy:
    """One closed study of every file below the folders, as the receiver would record it."""
    instances = []
    study_uid = STUDY_UID
    for path in sorted(p for folder in folders for p in folder.rglob("*") if p.is_file()):
        ds = dcmread(path, stop_before_pixels=True, force=True)
        study_uid = str(ds.get("StudyInstanceUID") or study_uid)
        instances.append(
            SpooledInstance(
                path=path,
                sop_instance_uid=str(ds.get("SOPInstanceUID", "")),
                sop_class_uid=str(ds.get("SOPClassUID", "")),
                series_uid=str(ds.get("SeriesInstanceUID", "")),
            )
        )
    return ClosedStudy(study_uid, "revision-1", 1, tuple(instances))


def with_digests(study: ClosedStudy) -> ClosedStudy:
    """Add the SHA-256 of each file, which the receiver records."""
    return replace(
        study,
        instances=tuple(
            replace(each, sha256=hashlib.sha256(each.path.read_bytes()).hexdigest())
            for each in study.instances
        ),
    )


def stored_study(folder: Path, *series: Sequence[Dataset]) -> ClosedStudy:
    """Write each series to a folder of its own and close the study."""
    for number, datasets in enumerate(series, start=1):
        write(folder / str(number), datasets)
    return closed_study(folder)


def expected_volume(n_slices: int) -> Float32Array:
    """Voxels that `read_volume` must return for `t2_slices` without rescale."""
    return stored_values(n_slices).astype(np.float32)


def _item(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds
