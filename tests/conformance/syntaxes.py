"""One axial T2 series in every lossless transfer syntax, written by third-party encoders.

DCMTK writes all but JPEG 2000, which pydicom encodes with OpenJPEG. High-Throughput JPEG 2000 is
missing: neither Debian nor the project's dependencies have an encoder.
"""

from __future__ import annotations

import subprocess
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.support.builders.series_files import closed_study, t2_slices
from tests.support.builders.series_files import enhanced as packed

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    from core.studies import ClosedStudy

Kind = Literal["classic", "enhanced"]

COMMANDS: Final[dict[UID, tuple[str, ...]]] = {
    ExplicitVRLittleEndian: ("dcmconv", "+te"),
    ImplicitVRLittleEndian: ("dcmconv", "+ti"),
    ExplicitVRBigEndian: ("dcmconv", "+tb"),
    DeflatedExplicitVRLittleEndian: ("dcmconv", "+td"),
    RLELossless: ("dcmcrle",),
    JPEGLossless: ("dcmcjpeg", "+el", "+sv", "6"),
    JPEGLosslessSV1: ("dcmcjpeg", "+e1"),
    JPEGLSLossless: ("dcmcjpls", "+el"),
    JPEG2000Lossless: (),
}
"""Command that encodes each syntax; pydicom if there is none."""
N_SLICES: Final = 16
"""The minimum for grading."""
ROWS, COLUMNS = 96, 80


@cache
def stored_values() -> NDArray[np.uint16]:
    """Return a head with 12-bit noise, different in every slice; (slice, row, column)."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    head = np.where(np.hypot((rows - 48) / 40, (columns - 40) / 30) < 1, 1500, 0)
    noise = np.random.default_rng(7).integers(0, 2500, (N_SLICES, ROWS, COLUMNS))
    return (head + noise).astype(np.uint16)


@cache
def headers_and_pixels(kind: Kind) -> tuple[Dataset, ...]:
    """Build the data sets of the series, which are the same in every transfer syntax."""
    slices = t2_slices(
        N_SLICES,
        spacing_mm=5.0,
        PixelSpacing=[1.1, 1.2],
        BitsStored=12,
        HighBit=11,
        StudyDate="20260302",
        StudyTime="101500",
        PatientSex="F",
        AccessionNumber="ACC0001",
        FrameOfReferenceUID="2.25.4",
    )
    for ds, pixels in zip(slices, stored_values(), strict=True):
        ds.Rows, ds.Columns = pixels.shape
        ds.PixelData = pixels.tobytes()
    return tuple(slices) if kind == "classic" else (packed(slices),)


def write_study(folder: Path, kind: Kind, syntax: UID) -> ClosedStudy:
    """Write the series in a transfer syntax and remove the intermediate files."""
    target = folder / "study"
    target.mkdir(parents=True)
    for number, ds in enumerate(headers_and_pixels(kind)):
        plain, encoded = folder / f"{number:03}.dcm", target / f"{number:03}.dcm"
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(plain, enforce_file_format=True)
        if command := COMMANDS[syntax]:
            subprocess.run([*command, plain, encoded], check=True, timeout=60)
        else:
            copy = dcmread(plain)
            copy.compress(syntax, generate_instance_uid=False)
            copy.save_as(encoded)
        plain.unlink()
        written = dcmread(encoded, stop_before_pixels=True)
        assert written.file_meta.TransferSyntaxUID == syntax
        assert written.SOPInstanceUID == ds.SOPInstanceUID
    return closed_study(target)
