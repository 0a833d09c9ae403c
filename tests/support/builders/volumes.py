"""Volumes for the imaging tests: the real series, and heads made from the template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import SimpleITK as sitk

from tests.support.paths import SAMPLE_DATA
from worker.grading.records import SelectedSeries, SliceLocation, Template, Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

REAL_SERIES = SAMPLE_DATA / "study-brain-siemens" / "t2-tse-axial"


def volume_of(image: sitk.Image) -> Volume:
    """The image as the volume of a selected series with fictitious UIDs."""
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


def head(template: Template, *, contrast: str = "t2") -> sitk.Image:
    """The template as a scan in MNI space: 1 mm, with a rim of fat in place of the scalp."""
    t2 = sitk.GetArrayFromImage(template.t2)
    brain = sitk.GetArrayFromImage(template.brain_mask) > 0
    voxels = {"t2": t2, "t1": 1.2 * brain - t2}[contrast]
    image = like(template.t2, voxels)
    pad = [16] * 3
    image, mask = (sitk.ConstantPad(i, pad, pad) for i in (image, template.brain_mask))
    scalp = sitk.BinaryDilate(mask, [13] * 3) - sitk.BinaryDilate(mask, [8] * 3)
    return 1000 * image + 600 * sitk.Cast(scalp, sitk.sitkFloat32)


def like(reference: sitk.Image, voxels: NDArray[Any]) -> sitk.Image:
    """Voxels with the geometry of another image."""
    image = sitk.GetImageFromArray(voxels.astype(np.float32))
    image.CopyInformation(reference)
    return image


def pose(
    angles_deg: tuple[float, float, float] = (0, 0, 0),
    shift_mm: tuple[float, float, float] = (0, 0, 0),
    scale: float = 1.0,
) -> sitk.Similarity3DTransform:
    """Map from MNI points to patient points (LPS mm)."""
    euler = sitk.Euler3DTransform((0, 18, 8), *np.deg2rad(angles_deg).tolist(), shift_mm)
    similarity = sitk.Similarity3DTransform()
    similarity.SetCenter(euler.GetCenter())
    similarity.SetMatrix(euler.GetMatrix())
    similarity.SetTranslation(euler.GetTranslation())
    similarity.SetScale(scale)
    return similarity


def acquire(
    source: sitk.Image,
    to_patient: sitk.Transform,
    *,
    slices: int = 36,
    noise: float = 20.0,
) -> Volume:
    """Scan `source` (in MNI space) in a pose: axial, 0.9 mm pixels, slices of 4 mm."""
    grid = sitk.Image((240, 256, slices), sitk.sitkFloat32)
    grid.SetSpacing((0.9, 0.9, 4.0))
    grid.SetOrigin((-108, -97, 8 - 2.0 * (slices - 1)))
    scan = sitk.Resample(source, grid, to_patient.GetInverse())
    random = np.random.default_rng(1).normal(0, noise, sitk.GetArrayViewFromImage(scan).shape)
    return volume_of(like(grid, np.abs(sitk.GetArrayViewFromImage(scan) + random)))
