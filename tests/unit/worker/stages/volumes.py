"""Volumes for the imaging tests: the real series, and heads made from the template itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from core.errors import Reason
from core.records import SelectedSeries, SeriesVerdict, SliceLocation, Template, Volume
from tests.paths import SAMPLE_DATA

REAL_SERIES = SAMPLE_DATA / "study-brain-siemens" / "t2-tse-axial"


def volume_of(image: sitk.Image) -> Volume:
    """Any image as the volume of a selected series with made-up UIDs."""
    direction = np.reshape(image.GetDirection(), (3, 3))
    slices = tuple(
        SliceLocation(
            Path(f"{k}.dcm"),
            f"1.2.3.{k}",
            "1.2.840.10008.5.1.4.1.1.4",
            None,
            image.TransformIndexToPhysicalPoint((0, 0, k)),
        )
        for k in range(image.GetSize()[2])
    )
    columns, rows, spacing = image.GetSpacing()
    series = SelectedSeries(
        study_uid="1.2",
        series_uid="1.2.3",
        slices=slices,
        orientation=tuple(direction[:, :2].T.ravel()),
        pixel_spacing_mm=(rows, columns),
        slice_spacing_mm=spacing,
        verdicts=(SeriesVerdict("1.2.3", Reason.SELECTED, "", len(slices)),),
    )
    return Volume(sitk.Cast(image, sitk.sitkFloat32), series)


def real_volume() -> Volume:
    """The axial T2 TSE of the sample study."""
    datasets = [pydicom.dcmread(path) for path in sorted(REAL_SERIES.iterdir())]
    orientation = np.array(datasets[0].ImageOrientationPatient, float)
    row, column = orientation[:3], orientation[3:]
    normal = np.cross(row, column)
    datasets.sort(key=lambda ds: float(np.dot(normal, ds.ImagePositionPatient)))
    image = sitk.GetImageFromArray(np.stack([ds.pixel_array for ds in datasets]).astype(np.float32))
    first, last = (np.array(ds.ImagePositionPatient, float) for ds in (datasets[0], datasets[-1]))
    spacing = float(np.linalg.norm(last - first)) / (len(datasets) - 1)
    between_rows, between_columns = map(float, datasets[0].PixelSpacing)
    image.SetSpacing((between_columns, between_rows, spacing))
    image.SetOrigin(first.tolist())
    image.SetDirection(np.stack([row, column, normal], axis=1).ravel().tolist())
    return volume_of(image)
