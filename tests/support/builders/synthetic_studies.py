"""Studies for the system tests: copies under new UIDs, so that each sender sends its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydicom
from pydicom.uid import generate_uid

from training.synthetic.dicom import write_sample_study

if TYPE_CHECKING:
    from pathlib import Path


def generate_synthetic_study(folder: Path, seed: int) -> Path:
    """Generate a synthetic study, the same as ``python -m training sample-study`` writes."""
    write_sample_study(folder, seed)
    return folder


def copy_study(source: Path, target: Path) -> str:
    """Copy every DICOM file below `source` under new UIDs; return the new study UID."""
    target.mkdir(parents=True)
    uids: dict[str, str] = {}
    study_uid = ""
    for number, path in enumerate(sorted(p for p in source.rglob("*") if p.is_file())):
        dataset = pydicom.dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            old = str(dataset[keyword].value)
            setattr(dataset, keyword, uids.setdefault(old, str(generate_uid())))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(target / f"{number:04d}.dcm")
        study_uid = str(dataset.StudyInstanceUID)
    return study_uid
