"""Scan grids: position and spacing of the slices through the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import SimpleITK as sitk

from training.synthetic.fields import Float64Array, rotation


@dataclass(frozen=True)
class Grid:
    """A stack of parallel slices in patient space.

    Attributes
    ----------
    columns, rows, slices : int
    pixel_mm : float
        Square pixels.
    spacing_mm, thickness_mm : float
        Distance between slice centres, and thickness of a slice.
    direction : ndarray, shape (3, 3)
        Its columns are the directions of a row, of a column and of the slice normal (LPS).
    origin_mm : ndarray, shape (3,)
        Centre of the first pixel.
    """

    columns: int
    rows: int
    slices: int
    pixel_mm: float
    spacing_mm: float
    thickness_mm: float
    direction: Float64Array
    origin_mm: Float64Array

    def to_slice(self, points_mm: Float64Array) -> Float64Array:
        """Convert points to distances (mm) from the first pixel along row, column and normal."""
        return (points_mm - self.origin_mm) @ self.direction

    def image(self, voxels: np.ndarray) -> sitk.Image:
        """Return `voxels` (slice, row, column) as a float32 image on this grid."""
        image = sitk.GetImageFromArray(voxels.astype(np.float32, copy=False))
        image.SetSpacing((self.pixel_mm, self.pixel_mm, self.spacing_mm))
        image.SetOrigin(self.origin_mm.tolist())
        image.SetDirection(self.direction.ravel().tolist())
        return image


@dataclass(frozen=True)
class Protocol:
    """Matrix and spacing of one kind of axial T2 series.

    `slices` gives the smallest and the largest number of slices.
    """

    columns: int
    rows: int
    slices: tuple[int, int]
    pixel_mm: float
    spacing_mm: float
    thickness_mm: float


PROTOCOLS: Final[dict[str, Protocol]] = {
    # Rating paper, section 2.2: 384 × 384, 0.573 mm, 28 slices of 5 mm.
    "rating-paper": Protocol(384, 384, (28, 28), 0.573, 5.0, 4.4),
    # Severity paper, Methods: 512 × 512, 24 to 36 slices of 4 mm.
    "severity-paper": Protocol(512, 512, (24, 36), 0.45, 4.0, 3.6),
    # A research protocol seen on a 3 T scanner: gapless 2.5 mm slices.
    "thin-slices": Protocol(384, 512, (56, 56), 0.43, 2.5, 2.5),
}


def place(
    rng: np.random.Generator, protocol: Protocol, *, shift_mm: float = 8.0, oblique_deg: float = 6.0
) -> Grid:
    """Draw an axial grid around the patient origin, slightly shifted and tilted as in practice."""
    direction = rotation(rng.uniform(-oblique_deg, oblique_deg, 3))
    centre = rng.uniform(-shift_mm, shift_mm, 3) * np.array([0.6, 0.6, 1.0])
    slices = int(rng.integers(protocol.slices[0], protocol.slices[1], endpoint=True))
    return _centred(protocol, slices, direction, centre)


def sagittal(slices: int, size: int, pixel_mm: float, spacing_mm: float) -> Grid:
    """Return a sagittal grid through the patient origin: rows to posterior, columns to inferior."""
    direction = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    protocol = Protocol(size, size, (slices, slices), pixel_mm, spacing_mm, spacing_mm)
    return _centred(protocol, slices, direction, np.zeros(3))


def _centred(
    protocol: Protocol, slices: int, direction: Float64Array, centre: Float64Array
) -> Grid:
    extent = np.array(
        [
            (protocol.columns - 1) * protocol.pixel_mm,
            (protocol.rows - 1) * protocol.pixel_mm,
            (slices - 1) * protocol.spacing_mm,
        ]
    )
    return Grid(
        protocol.columns,
        protocol.rows,
        slices,
        protocol.pixel_mm,
        protocol.spacing_mm,
        protocol.thickness_mm,
        direction,
        centre - direction @ (extent / 2),
    )
