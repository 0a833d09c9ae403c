"""Random smooth fields, interpolation and rotation matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]


def smooth_noise(
    rng: np.random.Generator, shape: Sequence[int], fwhm: float, step: float
) -> Float32Array:
    """Draw a smooth Gaussian random field.

    White noise of unit variance is smoothed on a grid with a spacing of `step` voxels and
    interpolated linearly, which is sufficient for a smoothness of `fwhm` voxels. The amplitude is
    not restored after smoothing: the standard deviation is about 0.17 for ``fwhm=5, step=2.5`` and
    falls with ``fwhm / step``.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : sequence of int
        Shape of the result, with 2 or 3 dimensions.
    fwhm, step : float
        In voxels of the result.

    Returns
    -------
    ndarray of float32
    """
    coarse = [int(np.ceil(n / step)) + 3 for n in shape]
    noise = sitk.GetImageFromArray(rng.standard_normal(coarse, dtype=np.float32))
    noise = sitk.SmoothingRecursiveGaussian(noise, max(fwhm / step / 2.355, 0.3))
    noise.SetSpacing([step] * len(coarse))
    fine = sitk.Image([int(n) for n in shape[::-1]], sitk.sitkFloat32)
    fine.SetOrigin([step] * len(coarse))
    return sitk.GetArrayFromImage(sitk.Resample(noise, fine, sitk.Transform(), sitk.sitkLinear))


def interpolate(field: Float32Array, index: Float64Array) -> Float64Array:
    """Interpolate a vector field trilinearly; the result is zero outside the field.

    Parameters
    ----------
    field : ndarray, shape (depth, height, width, channels)
    index : ndarray, shape (n, 3)
        Continuous indices (x, y, z).

    Returns
    -------
    ndarray, shape (n, channels)
    """
    low = np.floor(index).astype(int)
    weight = index - low
    value = np.zeros((len(index), field.shape[-1]))
    size = np.array(field.shape[2::-1])
    for corner in np.ndindex(2, 2, 2):
        at = low + corner
        w = np.prod(np.where(np.array(corner) == 1, weight, 1 - weight), axis=1)
        inside = np.all((at >= 0) & (at < size), axis=1)
        x, y, z = at[inside].T
        value[inside] += w[inside, None] * field[z, y, x]
    return value


def rotation(degrees: ArrayLike) -> Float64Array:
    """Return the matrix of a rotation about x, then y, then z.

    Parameters
    ----------
    degrees : array_like of three floats

    Returns
    -------
    ndarray, shape (3, 3)
    """
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
