"""Scans of a site: NIfTI files with unsuitable geometry and unreadable files are rejected."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from core.errors import EpvsError
from training.cohorts.scans import load_scan

FINE = (0.5, 0.5, 5.0)


def _image(shape: tuple[int, ...] = (28, 20, 24)) -> sitk.Image:
    return sitk.GetImageFromArray(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


def _save(image: sitk.Image, folder: Path, spacing: tuple[float, ...] = FINE) -> Path:
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(folder / "scan.nii"))
    return folder / "scan.nii"


def test_axes_are_reordered_without_moving_voxels(tmp_path: Path) -> None:
    image = _image()
    image.SetOrigin((-60.0, -50.0, -40.0))
    image.SetSpacing(FINE)
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(image, "ASR"), str(path))  # stored as sagittal slices
    volume = load_scan(path)
    assert volume.image.GetSize() == image.GetSize()
    assert np.allclose(volume.image.GetOrigin(), image.GetOrigin(), atol=1e-4)
    assert volume.image[3, 5, 7] == image[3, 5, 7]
    assert [round(s.position_mm[2]) for s in volume.slices[:3]] == [-40, -35, -30]
    assert volume.series.pixel_spacing_mm == pytest.approx((0.5, 0.5))
    assert volume.series.slice_spacing_mm == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("shape", "spacing", "reason"),
    [
        ((28, 20, 24), (0.5, 0.5, 8.0), "slices-too-thick"),
        ((28, 20, 24), (1.5, 1.5, 5.0), "pixels-too-coarse"),
        ((28, 20, 24), (0.5, 5.0, 0.5), "pixels-too-coarse"),  # coronal slices
        ((10, 20, 24), FINE, "too-few-slices"),
        ((2, 28, 20, 24), (*FINE, 1.0), "three-dimensional"),
    ],
)
def test_nifti_geometry_must_satisfy_the_limits_of_selection(
    shape: tuple[int, ...], spacing: tuple[float, ...], reason: str, tmp_path: Path
) -> None:
    image = _image(shape) if len(shape) == 3 else sitk.JoinSeries([_image(shape[1:])] * shape[0])
    with pytest.raises(EpvsError, match=reason):
        load_scan(_save(image, tmp_path, spacing))


def test_tilted_slices_are_rejected(tmp_path: Path) -> None:
    image = _image()
    image.SetDirection(np.array(sitk.Euler3DTransform((0, 0, 0), 0.6, 0, 0).GetMatrix()).tolist())
    with pytest.raises(EpvsError, match="not-axial"):
        load_scan(_save(image, tmp_path))


def test_unreadable_files_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(b"not NIfTI")
    with pytest.raises(EpvsError, match="not a NIfTI file"):
        load_scan(tmp_path / "scan.nii")
    with pytest.raises(EpvsError, match="0 studies"):
        load_scan(tmp_path)
    (tmp_path / "scan.mha").write_bytes(b"")
    with pytest.raises(EpvsError, match="neither a folder"):
        load_scan(tmp_path / "scan.mha")
