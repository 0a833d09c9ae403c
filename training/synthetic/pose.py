"""Pose and shape of a synthetic head: the map between patient space and MNI space.

The map from patient to MNI is affine (position, rotation, size), followed by a smooth displacement
in MNI space, which also widens or narrows the ventricles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk

from training.synthetic.anatomy import HIGH_MM, LOW_MM
from training.synthetic.fields import Float32Array, Float64Array, interpolate, rotation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_STEP_MM: Final = 4.0
_ORIGIN: Final = np.array(LOW_MM, dtype=float) - 8
_SIZE: Final = (np.ceil((np.array(HIGH_MM) - LOW_MM + 16) / _STEP_MM) + 1).astype(int)
_CENTRE_MM: Final = np.array([0.0, 18.0, 8.0])
# Centres (|x|, y, z; MNI LPS mm) around which the ventricles widen, and radii (mm).
_VENTRICLES: Final = (
    ((12.0, -20.0, 10.0), 11.0),
    ((14.0, 5.0, 20.0), 12.0),
    ((22.0, 38.0, 14.0), 13.0),
    ((3.0, 14.0, 2.0), 7.0),
)


@dataclass(frozen=True)
class PoseRange:
    """Largest deviations from the template."""

    rotation_deg: float = 12.0
    shift_mm: float = 15.0
    scale: float = 0.08
    warp_mm: float = 4.0


class Pose:
    """One subject's map between patient space and MNI space.

    Parameters
    ----------
    rng : numpy.random.Generator
    limits : PoseRange

    Attributes
    ----------
    transform : SimpleITK.Transform
        Maps patient points to MNI points (LPS mm), as needed to resample onto a patient grid.
    """

    def __init__(self, rng: np.random.Generator, limits: PoseRange | None = None) -> None:
        limits = limits or PoseRange()
        turn = rotation(rng.uniform(-limits.rotation_deg, limits.rotation_deg, 3))
        size = 1 + rng.uniform(-limits.scale, limits.scale) + rng.uniform(-0.04, 0.04, 3)
        self._matrix = np.diag(1 / size) @ turn
        self._shift = rng.uniform(-limits.shift_mm, limits.shift_mm, 3)
        self._field = _displacement(rng, limits.warp_mm)

        affine = sitk.AffineTransform(3)
        affine.SetMatrix(self._matrix.ravel().tolist())
        affine.SetTranslation((_CENTRE_MM - self._matrix @ self._shift).tolist())
        field = sitk.GetImageFromArray(self._field.astype(np.float64), isVector=True)
        field.SetSpacing([_STEP_MM] * 3)
        field.SetOrigin(_ORIGIN.tolist())
        # SimpleITK applies the last transform first.
        self.transform = sitk.CompositeTransform([sitk.DisplacementFieldTransform(field), affine])

    def to_mni(self, points_mm: ArrayLike) -> Float64Array:
        """Convert patient points to MNI points, shape (n, 3)."""
        affine = (np.atleast_2d(points_mm) - self._shift) @ self._matrix.T + _CENTRE_MM
        return affine + self._displace(affine)

    def to_patient(self, points_mm: ArrayLike) -> Float64Array:
        """Convert MNI points to patient points, shape (n, 3), by fixed-point iteration."""
        target = np.atleast_2d(np.asarray(points_mm, dtype=float))
        affine = target.copy()
        for _ in range(25):  # a contraction: the error at least halves each time
            affine = 0.5 * affine + 0.5 * (target - self._displace(affine))
        return (affine - _CENTRE_MM) @ np.linalg.inv(self._matrix).T + self._shift

    def _displace(self, mni: Float64Array) -> Float64Array:
        return interpolate(self._field, (mni - _ORIGIN) / _STEP_MM)


def _displacement(rng: np.random.Generator, warp_mm: float) -> Float32Array:
    """Draw a displacement field in mm, shape (depth, height, width, 3)."""
    shape = tuple(int(n) for n in _SIZE[::-1])
    field = np.empty((*shape, 3), dtype=np.float32)
    for axis in range(3):
        noise = sitk.GetImageFromArray(rng.standard_normal(shape, dtype=np.float32))
        smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, 4.75))
        field[..., axis] = smooth / np.abs(smooth).max() * warp_mm * rng.uniform(0.3, 1)
    z, y, x = np.meshgrid(
        *(np.arange(shape[a]) * _STEP_MM + _ORIGIN[2 - a] for a in range(3)), indexing="ij"
    )
    swelling = rng.uniform(-0.25, 0.75)
    for (cx, cy, cz), radius in _VENTRICLES:
        for side in (-1, 1):
            offset = np.stack([x - side * cx, y - cy, z - cz], axis=-1)
            weight = np.exp(-np.sum(offset**2, axis=-1, keepdims=True) / (2 * radius**2))
            field -= (0.45 * swelling * weight * offset).astype(np.float32)
    return field
