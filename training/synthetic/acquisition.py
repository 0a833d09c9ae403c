"""Simulated acquisition: from the signal of a head to the voxels of a scan.

The steps are, in this order: sampling with averaging through the slice, sensitivity (bias field),
k-space (truncation with Gibbs ringing, motion ghosts), Rician noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk

from training.synthetic.fields import Float32Array, smooth_noise

if TYPE_CHECKING:
    from training.synthetic.conditions import Conditions
    from training.synthetic.grids import Grid

_BASE_PIXEL_MM: Final = 0.87
"""Resolution of the tissue maps is 1 mm; thin vessels are drawn later, on the full matrix."""
_SUBSLICE_MM: Final = 1.5


@dataclass(frozen=True)
class Imperfections:
    """Imperfections of one scan.

    Attributes
    ----------
    noise : float
        Standard deviation in each channel, relative to CSF.
    bias : float
        Maximum of the natural logarithm of the sensitivity.
    sampled : float
        Share of the phase-encoding lines that are acquired; the others are zero-filled.
    motion_mm : float
        Standard deviation of the head's position between segments of k-space.
    """

    noise: float = 0.0
    bias: float = 0.0
    sampled: float = 1.0
    motion_mm: float = 0.0


def random_imperfections(rng: np.random.Generator, conditions: Conditions) -> Imperfections:
    """Draw the imperfections of one scan."""
    return Imperfections(
        noise=float(np.exp(rng.uniform(*np.log(conditions.noise)))),
        bias=rng.uniform(*conditions.bias),
        sampled=rng.uniform(*conditions.sampled),
        motion_mm=rng.uniform(*conditions.motion_mm) if rng.random() < conditions.moved else 0.0,
    )


def sample(signal: sitk.Image, to_signal: sitk.Transform, grid: Grid) -> Float32Array:
    """Sample the signal on the grid, averaged through each slice.

    Parameters
    ----------
    signal : SimpleITK.Image
        Signal in its own space.
    to_signal : SimpleITK.Transform
        Maps patient points to points in the space of `signal`.
    grid : Grid

    Returns
    -------
    ndarray of float32, shape (slices, rows, columns)
    """
    pixel = max(grid.pixel_mm, _BASE_PIXEL_MM)
    size = [int(np.ceil((n - 1) * grid.pixel_mm / pixel)) + 1 for n in (grid.columns, grid.rows)]
    count = max(1, round(grid.thickness_mm / _SUBSLICE_MM))
    offsets = ((np.arange(count) + 0.5) / count - 0.5) * grid.thickness_mm
    coarse = sitk.Image([*size, grid.slices], sitk.sitkFloat32)
    coarse.SetSpacing((pixel, pixel, grid.spacing_mm))
    coarse.SetDirection(grid.direction.ravel().tolist())
    mean = np.zeros((grid.slices, size[1], size[0]), dtype=np.float32)
    for offset in offsets:
        coarse.SetOrigin((grid.origin_mm + grid.direction[:, 2] * offset).tolist())
        shifted = sitk.Resample(signal, coarse, to_signal, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
        mean += sitk.GetArrayViewFromImage(shifted) / np.float32(count)
    # Interpolate each slice in-plane to the full matrix, which the coarse grid covers.
    averaged = sitk.GetImageFromArray(mean)
    averaged.SetSpacing((pixel, pixel, 1.0))
    fine = sitk.Image([grid.columns, grid.rows, grid.slices], sitk.sitkFloat32)
    fine.SetSpacing((grid.pixel_mm, grid.pixel_mm, 1.0))
    return sitk.GetArrayFromImage(sitk.Resample(averaged, fine, sitk.Transform(), sitk.sitkLinear))


def degrade(
    rng: np.random.Generator, voxels: Float32Array, grid: Grid, quality: Imperfections
) -> Float32Array:
    """Apply bias field, truncated k-space, motion and noise, in this order.

    Parameters
    ----------
    rng : numpy.random.Generator
    voxels : ndarray, shape (slices, rows, columns)
    grid : Grid
    quality : Imperfections

    Returns
    -------
    ndarray of float32
        Magnitude, same shape.
    """
    if quality.bias > 0:
        coarse = smooth_noise(rng, (8, 16, 16), fwhm=7, step=2)
        coarse *= quality.bias / np.abs(coarse).max()
        voxels = voxels * np.exp(_stretch(coarse, voxels.shape))
    if quality.sampled < 1 or quality.motion_mm > 0:
        voxels = through_k_space(rng, voxels, grid.pixel_mm, quality)
    if quality.noise > 0:
        noise = np.float32(quality.noise)
        real = voxels + noise * rng.standard_normal(voxels.shape, dtype=np.float32)
        imaginary = noise * rng.standard_normal(voxels.shape, dtype=np.float32)
        voxels = np.hypot(real, imaginary)
    return voxels


def through_k_space(
    rng: np.random.Generator, voxels: Float32Array, pixel_mm: float, quality: Imperfections
) -> Float32Array:
    """Acquire each slice line by line, with phase encoding along the columns, and reconstruct it.

    Parameters
    ----------
    rng : numpy.random.Generator
    voxels : ndarray, shape (slices, rows, columns)
    pixel_mm : float
        Distance between rows.
    quality : Imperfections
        Truncation and motion are applied.

    Returns
    -------
    ndarray of float32
        Magnitude, same shape.
    """
    _, rows, _ = voxels.shape
    frequency = np.fft.fftfreq(rows).astype(np.float32)  # cycles per pixel of each line
    acquired = (np.abs(frequency) <= quality.sampled / 2).astype(np.float32)
    result = np.empty_like(voxels)
    for index, plane in enumerate(voxels):
        lines = np.fft.fft(plane, axis=0) * acquired[:, None]
        if quality.motion_mm > 0:
            # Interleaved echo trains: neighbouring lines are acquired seconds apart.
            shift = rng.normal(0, quality.motion_mm / pixel_mm, 8).astype(np.float32)
            phase = -2j * np.pi * frequency * shift[np.arange(rows) % 8]
            lines = lines * np.exp(phase).astype(np.complex64)[:, None]
        result[index] = np.abs(np.fft.ifft(lines, axis=0))
    return result


def _stretch(field: Float32Array, shape: tuple[int, ...]) -> Float32Array:
    """Interpolate a coarse field linearly to a larger array."""
    image = sitk.GetImageFromArray(field)
    fine = sitk.Image([int(n) for n in shape[::-1]], sitk.sitkFloat32)
    fine.SetSpacing(
        [(c - 1) / max(n - 1, 1) for c, n in zip(field.shape, shape, strict=True)][::-1]
    )
    return sitk.GetArrayFromImage(sitk.Resample(image, fine, sitk.Transform(), sitk.sitkLinear))
