"""Writes synthetic subjects as classic MR Image Storage instances, as a scanner would send them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from core.uids import derived_uid
from core.version import MANUFACTURER, NAME, VERSION
from training.synthetic.acquisition import Imperfections, degrade, sample
from training.synthetic.anatomy import T1_CONTRAST, signal_map
from training.synthetic.grids import Grid, sagittal
from training.synthetic.subjects import Subject, make_subject, to_stored_values

if TYPE_CHECKING:
    from pathlib import Path

    import SimpleITK as sitk
    from numpy.typing import NDArray

_DATE: Final = "20260101"


@dataclass(frozen=True)
class Sequence:
    """Acquisition parameters of a series (PS3.3 C.8.3.1)."""

    number: int
    description: str
    scanning_sequence: str | list[str]
    sequence_variant: str
    acquisition_type: str
    repetition_ms: float
    echo_ms: float
    flip_deg: float
    echo_train: int
    inversion_ms: float | None = None


T2_TSE: Final = Sequence(2, "T2 TSE axial", "SE", "SK", "2D", 4450, 81, 150, 19)
T1_MPRAGE: Final = Sequence(
    3, "T1 MPRAGE sagittal", ["GR", "IR"], "SP", "3D", 2300, 2.98, 9, 1, inversion_ms=900
)


def write_sample_study(folder: Path, seed: int) -> Subject:
    """Write a study of two series: an axial T2 that the node grades and a sagittal T1.

    Parameters
    ----------
    folder : Path
        Created, with one folder per series.
    seed : int
        Determines anatomy, EPVS and UIDs; the same seed gives the same files.

    Returns
    -------
    Subject
        With the true EPVS counts of the T2 series.
    """
    subject = make_subject(seed, number=seed, protocol="thin-slices")
    write_series(folder / "t2-tse-axial", subject.voxels, subject.grid, T2_TSE, str(seed))

    rng = np.random.default_rng([seed, subject.number, T1_MPRAGE.number])
    grid = sagittal(slices=26, size=256, pixel_mm=1.0, spacing_mm=5.0)
    signal = sample(signal_map(rng, T1_CONTRAST), subject.pose.transform, grid)
    signal = degrade(rng, signal, grid, Imperfections(noise=0.02, bias=0.2))
    write_series(
        folder / "t1-mprage-sagittal", to_stored_values(signal), grid, T1_MPRAGE, str(seed)
    )
    return subject


def write_series(
    folder: Path, voxels: NDArray[np.uint16], grid: Grid, sequence: Sequence, study: str
) -> list[Path]:
    """Write a stack of slices as MR Image Storage instances.

    Parameters
    ----------
    folder : Path
        Created.
    voxels : ndarray of uint16, shape (slices, rows, columns)
    grid : Grid
    sequence : Sequence
    study : str
        Name of the study, at most 13 characters; series with the same name belong together.

    Returns
    -------
    list of Path
        One per slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, pixels in enumerate(voxels):
        dataset = _instance(pixels, index, grid, sequence, study)
        path = folder / f"{index + 1:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _instance(
    pixels: NDArray[np.uint16], index: int, grid: Grid, sequence: Sequence, study: str
) -> FileDataset:
    key = {"study": study, "series": sequence.number}
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(derived_uid("phantom-instance", {**key, "slice": index}))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = derived_uid("phantom-study", {"study": study})
    dataset.SeriesInstanceUID = derived_uid("phantom-series", key)
    dataset.FrameOfReferenceUID = derived_uid("phantom-frame", {"study": study})
    _describe_study(dataset, study)
    _describe_sequence(dataset, sequence)
    _describe_pixels(dataset, pixels, index, grid)
    return dataset


def _describe_study(dataset: Dataset, study: str) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "SYNTHETIC^PHANTOM"
    dataset.PatientID = f"PHANTOM-{study}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyID = "1"
    dataset.AccessionNumber = f"SYN{study}"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Synthetic brain"
    for part in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{part}Date", _DATE)
        setattr(dataset, f"{part}Time", "120000")
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = f"{NAME} phantom"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = VERSION
    dataset.PositionReferenceIndicator = ""


def _describe_sequence(dataset: Dataset, sequence: Sequence) -> None:
    dataset.Modality = "MR"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    dataset.SeriesNumber = sequence.number
    dataset.SeriesDescription = sequence.description
    dataset.ProtocolName = sequence.description
    dataset.AcquisitionNumber = 1
    dataset.BodyPartExamined = "BRAIN"
    dataset.PatientPosition = "HFS"
    dataset.ScanningSequence = sequence.scanning_sequence
    dataset.SequenceVariant = sequence.sequence_variant
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = sequence.acquisition_type
    dataset.RepetitionTime = sequence.repetition_ms
    dataset.EchoTime = sequence.echo_ms
    dataset.EchoNumbers = 1
    dataset.EchoTrainLength = sequence.echo_train
    dataset.FlipAngle = sequence.flip_deg
    dataset.MagneticFieldStrength = 3
    dataset.ImagedNucleus = "1H"
    dataset.NumberOfAverages = 1
    if sequence.inversion_ms is not None:
        dataset.InversionTime = sequence.inversion_ms


def _describe_pixels(dataset: Dataset, pixels: NDArray[np.uint16], index: int, grid: Grid) -> None:
    position = grid.origin_mm + grid.direction[:, 2] * index * grid.spacing_mm
    dataset.InstanceNumber = index + 1
    dataset.ImagePositionPatient = [_decimal(v) for v in position]
    dataset.ImageOrientationPatient = [_decimal(v) for v in grid.direction[:, :2].T.ravel()]
    dataset.SliceLocation = _decimal(float(position @ grid.direction[:, 2]))
    dataset.SliceThickness = _decimal(grid.thickness_mm)
    dataset.SpacingBetweenSlices = _decimal(grid.spacing_mm)
    dataset.PixelSpacing = [_decimal(grid.pixel_mm)] * 2
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter = 600
    dataset.WindowWidth = 1200
    dataset.PixelData = pixels.astype("<u2").tobytes()


def _decimal(value: float) -> str:
    """Format a Decimal String of at most 16 characters (PS3.5 section 6.2)."""
    return f"{value:.10g}"[:16]


def as_image(subject: Subject) -> sitk.Image:
    """Return the T2 series as one image in patient space, as the pipeline would assemble it."""
    return subject.grid.image(subject.voxels)
