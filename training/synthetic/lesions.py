"""Lacunes and white-matter hyperintensities: bright lesions that are not perivascular spaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.synthetic.anatomy import head
from training.synthetic.fields import Float32Array, Float64Array, rotation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.synthetic.conditions import Conditions
    from training.synthetic.grids import Grid
    from training.synthetic.pose import Pose

_SUBSLICES = 4


@dataclass(frozen=True)
class Lesion:
    """Ellipsoid with a soft edge in patient space.

    Attributes
    ----------
    centre_mm, radii_mm : ndarray, shape (3,)
    axes : ndarray, shape (3, 3)
        Its rows are the directions of the radii.
    signal : float
        Relative to CSF.
    rim : float
        Strength (0–1) of the gliotic rim.
    """

    centre_mm: Float64Array
    radii_mm: Float64Array
    axes: Float64Array
    signal: float
    rim: float = 0.0


def random_lesions(rng: np.random.Generator, pose: Pose, conditions: Conditions) -> list[Lesion]:
    """Draw the lacunes (CSF-like) and white-matter hyperintensities of one subject."""
    lesions = []
    for _ in range(rng.poisson(conditions.lacunes)):
        if rng.random() < 0.6:
            points = head().basal_ganglia
            centre = points[rng.integers(len(points))]
        else:
            centre = _white_matter(rng, (-30, 30), (18, 32))
        radii = rng.uniform(1.5, 5.0) * rng.uniform(0.7, 1.2, 3)
        rim = 0.5 if rng.random() < 0.6 else 0.0
        lesions.append(_place(rng, pose, centre, radii, 1.0, rim))
    for _ in range(rng.poisson(conditions.hyperintensities)):
        depth = (-38.0, -15.0) if rng.random() < 0.5 else (15.0, 45.0)
        centre = _white_matter(rng, depth, (12, 34))
        radii = rng.uniform(2, 7) * rng.uniform(0.6, 1.3, 3)
        lesions.append(_place(rng, pose, centre, radii, rng.uniform(0.62, 0.82), 0.0))
    return lesions


def draw_lesions(lesions: Sequence[Lesion], grid: Grid, voxels: Float32Array) -> None:
    """Add lesions to a stack of slices, in place."""
    offsets = ((np.arange(_SUBSLICES) + 0.5) / _SUBSLICES - 0.5) * grid.thickness_mm
    for lesion in lesions:
        centre = grid.to_slice(lesion.centre_mm[None])[0]
        axes = lesion.axes @ grid.direction
        reach = lesion.radii_mm.max() + 3
        low = np.floor((centre[:2] - reach) / grid.pixel_mm).astype(int).clip(0)
        high = np.ceil((centre[:2] + reach) / grid.pixel_mm).astype(int) + 1
        high = np.minimum(high, (grid.columns, grid.rows))
        if (high <= low).any():
            continue
        v, u = np.meshgrid(
            np.arange(low[1], high[1]) * grid.pixel_mm - centre[1],
            np.arange(low[0], high[0]) * grid.pixel_mm - centre[0],
            indexing="ij",
        )
        mean_radius = lesion.radii_mm.mean()
        for index in range(grid.slices):
            w = index * grid.spacing_mm + offsets - centre[2]
            if np.abs(w).min() > reach:
                continue
            w3 = np.broadcast_to(w[:, None, None], (_SUBSLICES, *u.shape))
            at = np.stack([np.broadcast_to(u, w3.shape), np.broadcast_to(v, w3.shape), w3], axis=-1)
            radius = np.linalg.norm((at @ axes.T) / lesion.radii_mm, axis=-1)
            core = _soft(mean_radius / 0.35 * (1 - radius))
            rim = lesion.rim * _soft(mean_radius / 0.45 * (1 + 1.6 / mean_radius - radius))
            region = voxels[index, low[1] : high[1], low[0] : high[0]]
            region += rim * (np.float32(0.72) - region)
            region += core * (np.float32(lesion.signal) - region)


def _soft(value: Float64Array) -> Float32Array:
    """Logistic function, averaged through the slice."""
    return (1 / (1 + np.exp(-np.clip(value, -30, 30)))).mean(axis=0).astype(np.float32)


def _white_matter(
    rng: np.random.Generator, y_mm: tuple[float, float], z_mm: tuple[float, float]
) -> Float64Array:
    side = rng.choice([-1.0, 1.0])
    return np.array([side * rng.uniform(16, 34), rng.uniform(*y_mm), rng.uniform(*z_mm)])


def _place(
    rng: np.random.Generator,
    pose: Pose,
    centre_mni: Float64Array,
    radii: Float64Array,
    signal: float,
    rim: float,
) -> Lesion:
    centre = pose.to_patient(centre_mni)[0]
    return Lesion(centre, radii, rotation(rng.uniform(-90, 90, 3)), signal, rim)
