"""Enlarged perivascular spaces and flow voids, modelled as thin curved tubes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from core.results import Side
from training.synthetic.anatomy import head

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from training.synthetic.fields import Float32Array, Float64Array
    from training.synthetic.grids import Grid
    from training.synthetic.pose import Pose

VISIBLE_SHARE: Final = 0.25
"""A tube counts as visible in a slice if it fills more than this share of one of its voxels."""
_SUBSLICES: Final = 4


@dataclass(frozen=True)
class Tube:
    """Polyline of three points with a radius, in patient space."""

    points_mm: Float64Array
    radius_mm: float
    side: Side


@dataclass(frozen=True)
class Patch:
    """Shares of the voxels of one slice that a tube fills."""

    slice_index: int
    rows: slice
    columns: slice
    share: Float32Array


def grow_epvs(rng: np.random.Generator, count: int, side: Side, pose: Pose) -> list[Tube]:
    """Draw the EPVS in the basal ganglia of one hemisphere, far enough apart to be counted.

    Parameters
    ----------
    rng : numpy.random.Generator
    count : int
        Requested number; there are fewer if there is no room for more.
    side : Side
        The patient's side.
    pose : Pose

    Returns
    -------
    list of Tube
    """
    points = head().basal_ganglia
    sign = 1.0 if side is Side.LEFT else -1.0
    points = points[points[:, 0] * sign > 0]
    entry = np.array([sign * 13.0, -4.0, -30.0])  # perforators enter at the anterior substance
    curves: list[Float64Array] = []
    radii: list[float] = []
    centres = np.empty((0, 3))
    for _ in range(count * 30):
        if len(curves) == count:
            break
        centre = points[rng.integers(len(points))] + rng.uniform(-0.5, 0.5, 3)
        apart = np.linalg.norm((centres - centre)[:, :2], axis=1)
        if (apart < rng.uniform(1.6, 3.0)).any():
            continue
        radius = float(np.clip(rng.lognormal(np.log(0.62), 0.33), 0.3, 1.5))
        along = _unit(centre - entry) + rng.normal(0, 0.22, 3)
        if rng.random() < 0.12:  # some run in-plane, where thick ones would look like lacunes
            along = rng.normal(0, (0.6, 1.0, 0.35))
            radius = min(radius, 0.6)
        centres = np.vstack([centres, centre])
        curves.append(_curve(rng, centre, _unit(along), length=rng.uniform(5, 16)))
        radii.append(radius)
    if not curves:
        return []
    in_patient = pose.to_patient(np.concatenate(curves)).reshape(-1, 3, 3)
    return [Tube(points, radius, side) for points, radius in zip(in_patient, radii, strict=True)]


def grow_flow_voids(rng: np.random.Generator, count: int, pose: Pose) -> list[Tube]:
    """Draw flow voids: dark tubes in the Sylvian fissures and below the basal ganglia."""
    voids = []
    for _ in range(count):
        sign = rng.choice([-1.0, 1.0])
        centre = np.array([sign * rng.uniform(6, 44), rng.uniform(-24, 4), rng.uniform(-22, -6)])
        curve = _curve(rng, centre, _unit(rng.normal(0, 1, 3)), length=rng.uniform(6, 18))
        side = Side.LEFT if sign > 0 else Side.RIGHT
        voids.append(Tube(pose.to_patient(curve), float(rng.uniform(0.4, 1.2)), side))
    return voids


def render(tube: Tube, grid: Grid) -> Iterator[Patch]:
    """Compute the shares of the voxels that a tube fills, averaged through each slice.

    A tube that is thinner than a pixel fills at most the ratio of its diameter to the pixel.
    """
    points = grid.to_slice(tube.points_mm)
    reach = tube.radius_mm + grid.pixel_mm
    rows = _window(points[:, 1], reach, grid.pixel_mm, grid.rows)
    columns = _window(points[:, 0], reach, grid.pixel_mm, grid.columns)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    v, u = np.meshgrid(
        np.arange(rows.start, rows.stop) * grid.pixel_mm,
        np.arange(columns.start, columns.stop) * grid.pixel_mm,
        indexing="ij",
    )
    offsets = ((np.arange(_SUBSLICES) + 0.5) / _SUBSLICES - 0.5) * grid.thickness_mm
    half = grid.thickness_mm / 2 + reach
    first = max(0, int(np.ceil((points[:, 2].min() - half) / grid.spacing_mm)))
    last = min(grid.slices - 1, int(np.floor((points[:, 2].max() + half) / grid.spacing_mm)))
    thin = min(1.0, 2 * tube.radius_mm / grid.pixel_mm)
    for index in range(first, last + 1):
        w = np.broadcast_to(
            (index * grid.spacing_mm + offsets)[:, None, None], (_SUBSLICES, *u.shape)
        )
        at = np.stack([np.broadcast_to(u, w.shape), np.broadcast_to(v, w.shape), w], axis=-1)
        distance = np.minimum(
            _segment_distance(at, points[0], points[1]), _segment_distance(at, points[1], points[2])
        )
        share = np.clip(0.5 + (tube.radius_mm - distance) / grid.pixel_mm, 0, 1).mean(axis=0) * thin
        if share.max() > 0:
            yield Patch(index, rows, columns, share.astype(np.float32))


def draw_tubes(
    tubes: Sequence[Tube], grid: Grid, voxels: Float32Array, signal: float
) -> NDArray[np.bool_]:
    """Add tubes to a stack of slices.

    Parameters
    ----------
    tubes : sequence of Tube
    grid : Grid
    voxels : ndarray, shape (slices, rows, columns)
        Changed in place.
    signal : float
        Signal inside the tubes.

    Returns
    -------
    ndarray of bool, shape (len(tubes), slices)
        Which tube is visible in which slice.
    """
    visible = np.zeros((len(tubes), grid.slices), dtype=bool)
    for number, tube in enumerate(tubes):
        for patch in render(tube, grid):
            region = voxels[patch.slice_index, patch.rows, patch.columns]
            region += patch.share * (signal - region)
            visible[number, patch.slice_index] = patch.share.max() > VISIBLE_SHARE
    return visible


def _curve(
    rng: np.random.Generator, centre: Float64Array, along: Float64Array, length: float
) -> Float64Array:
    bend = _unit(np.cross(along, rng.normal(0, 1, 3))) * rng.uniform(0, 0.8)
    return np.array([centre - along * length / 2, centre + bend, centre + along * length / 2])


def _unit(vector: Float64Array) -> Float64Array:
    return vector / (np.linalg.norm(vector) + 1e-9)


def _window(at_mm: Float64Array, reach_mm: float, pixel_mm: float, count: int) -> slice:
    low = int(np.floor((at_mm.min() - reach_mm) / pixel_mm))
    high = int(np.ceil((at_mm.max() + reach_mm) / pixel_mm)) + 1
    return slice(max(0, low), min(count, high))


def _segment_distance(at: Float64Array, a: Float64Array, b: Float64Array) -> Float64Array:
    along = np.clip(((at - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
    return np.linalg.norm(at - (a + along[..., None] * (b - a)), axis=-1)
