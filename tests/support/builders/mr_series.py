"""A small valid MR series without anatomy, for tests of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

if TYPE_CHECKING:
    from pathlib import Path

PATIENT_NAME = "Canary^Patient"
PATIENT_ID = "CANARY-4711"


def make_image(study: str = "1.2.3", series: int = 1, number: int = 1, size: int = 32) -> Dataset:
    """MR image `number` of a series; its UIDs are ``study.series.number``."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MRImageStorage
    uid = f"{study}.{series}.{number}"
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = UID(uid)
    image.StudyDate = "20260131"
    image.Modality = "MR"
    image.AccessionNumber = "A-1"
    image.PatientName = PATIENT_NAME
    image.PatientID = PATIENT_ID
    image.StudyInstanceUID = study
    image.SeriesInstanceUID = f"{study}.{series}"
    image.InstanceNumber = number
    image.Rows = image.Columns = size
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    pixels = np.random.default_rng(number).integers(0, 4096, (size, size), np.uint16)
    image.PixelData = pixels.tobytes()
    return image


def write_series(
    folder: Path, n_images: int, *, study: str = "1.2.3", size: int = 32
) -> list[Path]:
    """Write images 1 to `n_images` as Part 10 files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(1, n_images + 1):
        path = folder / f"{study}-{number:04d}.dcm"
        make_image(study, number=number, size=size).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
