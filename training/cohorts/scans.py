"""Reads a site's scan as a `Volume`: a folder of DICOM files, or one NIfTI file.

DICOM folders go through the node's series selection. A NIfTI file does not record its sequence:
its geometry must satisfy the limits of series selection, and the quality check of the registration
decides whether it shows a T2-weighted brain.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage

from core.errors import EpvsError
from core.reasons import Reason
from core.studies import ClosedStudy, SpooledInstance
from worker.grading.errors import NotGradable
from worker.grading.records import SelectedSeries, SliceLocation, Volume
from worker.grading.stages.assembly import read_volume
from worker.grading.stages.selection import select_series
from worker.grading.stages.selection.geometry import (
    MAX_AXIAL_TILT_DEG,
    MAX_PIXEL_SPACING_MM,
    MAX_SLICE_SPACING_MM,
    MIN_COVERAGE_MM,
    MIN_SLICES,
    ROUNDING_MM,
)

if TYPE_CHECKING:
    from pathlib import Path

NIFTI_SUFFIXES: Final = (".nii", ".nii.gz")
_TAGS: Final = ["SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID"]

Cosines = tuple[float, float, float, float, float, float]


class UnusableScan(EpvsError):
    """The files cannot be read as one scan."""


def load_scan(path: Path) -> Volume:
    """Read a scan as the `Volume` that the pipeline's stages take.

    Parameters
    ----------
    path : Path
        Folder with the DICOM files of one study, or one ``.nii`` or ``.nii.gz`` file.

    Raises
    ------
    UnusableScan
        The path is neither of these, or its content cannot be read.
    NotGradable
        Series selection found no axial T2 series; the reason is its own.
    """
    if path.is_dir():
        return read_volume(select_series(_study(path)).require_series())
    if path.is_file() and path.name.lower().endswith(NIFTI_SUFFIXES):
        return _read_nifti(path)
    raise UnusableScan("neither a folder nor a NIfTI file (.nii, .nii.gz)")


def volume_on_grid(image: sitk.Image, path: Path) -> Volume:
    """Return an image without DICOM headers as the `Volume` that the stages take.

    Parameters
    ----------
    image : SimpleITK.Image
        float32, LPS mm, slices from inferior to superior.
    path : Path
        Identifies the scan; no file is read.
    """
    direction = np.array(image.GetDirection()).reshape(3, 3)
    columns_mm, rows_mm, slices_mm = image.GetSpacing()
    slices = tuple(
        SliceLocation(
            path,
            f"{path.name}-{k}",
            "",
            None,
            image.TransformIndexToPhysicalPoint((0, 0, k)),
        )
        for k in range(image.GetSize()[2])
    )
    series = SelectedSeries(
        study_uid=path.name,
        series_uid=path.name,
        slices=slices,
        orientation=cast("Cosines", tuple(direction[:, :2].T.ravel().tolist())),
        pixel_spacing_mm=(rows_mm, columns_mm),
        slice_spacing_mm=slices_mm,
    )
    return Volume(image, series)


def _study(folder: Path) -> ClosedStudy:
    """Collect all DICOM instances below a folder; other files are ignored."""
    instances, studies = [], set()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for number, path in enumerate(files, 1):
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            if header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
                continue
            uids = [str(header[tag].value) for tag in _TAGS]
        except InvalidDicomError:
            continue
        except Exception as error:
            # The parser can raise anything here. Skipping the file would leave a gap in the series.
            raise UnusableScan(
                f"file {number} of {len(files)} is a damaged DICOM file ({type(error).__name__})"
            ) from error
        instances.append(SpooledInstance(path, *uids[:3]))
        studies.add(uids[3])
    if len(studies) != 1:
        raise UnusableScan(f"the folder contains DICOM files of {len(studies)} studies, not of one")
    return ClosedStudy(studies.pop(), "cohort", 1, tuple(instances))


def _read_nifti(path: Path) -> Volume:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:  # the only exception of SimpleITK; its text contains paths
        raise UnusableScan("not a NIfTI file that SimpleITK can read") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise UnusableScan("not a single three-dimensional image with one value per voxel")
    # NIfTI files use any storage order. Reorder the axes so that rows run to the patient's left,
    # columns to posterior and slices to superior; positions in the patient do not change.
    image = sitk.Cast(sitk.DICOMOrient(image, "LPS"), sitk.sitkFloat32)
    _check_geometry(image)
    return volume_on_grid(image, path)


def _check_geometry(image: sitk.Image) -> None:
    """Apply the geometric limits of series selection."""
    pixel, spacing, count = max(image.GetSpacing()[:2]), image.GetSpacing()[2], image.GetSize()[2]
    tilt = math.degrees(math.acos(min(1.0, image.GetDirection()[8])))
    if tilt > MAX_AXIAL_TILT_DEG:
        raise NotGradable(Reason.NOT_AXIAL, f"normal {tilt:.0f}° from the head axis")
    if spacing > MAX_SLICE_SPACING_MM + ROUNDING_MM:
        raise NotGradable(Reason.SLICES_TOO_THICK, f"slices {spacing:.1f} mm apart")
    if pixel > MAX_PIXEL_SPACING_MM + ROUNDING_MM:
        raise NotGradable(Reason.PIXELS_TOO_COARSE, f"pixels of {pixel:.2f} mm")
    if count < MIN_SLICES and count * spacing < MIN_COVERAGE_MM:
        raise NotGradable(Reason.TOO_FEW_SLICES, f"{count} slices over {count * spacing:.0f} mm")
