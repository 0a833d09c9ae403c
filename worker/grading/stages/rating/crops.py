"""Position of the six basal-ganglia crops, and resampling them from the native slices.

MNI coordinates are given in RAS mm, as in the literature, and converted to LPS immediately.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from core.reasons import Reason
from core.results import Side
from worker.grading.errors import NotGradable

if TYPE_CHECKING:
    from worker.grading.records import Float32Array

ROWS, COLUMNS = 112, 86
LATERAL: Final = (2.0, 42.0)
"""Absolute x of a crop's medial and lateral edge."""
ANTERIOR: Final = (26.0, -26.0)
"""y of a crop's anterior and posterior edge."""
COMMISSURE_Z: Final = -4.0
"""z of the anterior commissure (MNI 0, 3, −4)."""
LEVEL_STEP: Final = 4.5
"""Distance between graded slices; those of the papers are 4 to 5 mm apart."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IndexMap:
    """Continuous voxel index (column, row, slice) of an MNI point: `matrix` · point + `offset`."""

    matrix: Array
    offset: Array

    @classmethod
    def of(cls, image: sitk.Image, affine: sitk.Transform) -> IndexMap:
        """Compose the registration's affine with the image's geometry."""

        def index(point: Array) -> Array:
            moved = affine.TransformPoint(point.tolist())
            return np.array(image.TransformPhysicalPointToContinuousIndex(moved))

        offset = index(np.zeros(3))
        return cls(np.stack([index(axis) - offset for axis in np.eye(3)], axis=1), offset)

    def in_slice(self, k: int) -> tuple[Array, Array]:
        """Map the MNI (x, y) of points that lie in slice `k` to (column, row).

        Returns
        -------
        matrix : ndarray, shape (2, 2)
        offset : ndarray, shape (2,)
        """
        # The height z of (x, y) in the slice follows from the third row; substitute it.
        slope = self.matrix[:2, 2] / self.matrix[2, 2]
        matrix = self.matrix[:2, :2] - np.outer(slope, self.matrix[2, :2])
        return matrix, self.offset[:2] + slope * (k - self.offset[2])


def graded_slices(image: sitk.Image, to_index: IndexMap) -> tuple[int, int, int]:
    """Choose the three slices to grade, as indices from inferior to superior.

    The first is the closest slice at or above the anterior commissure; in an oblique slice the
    height is measured midway between the two crops. The other two follow in whole slices, as close
    to `LEVEL_STEP` as the spacing allows: adjacent slices at the usual 4 to 6 mm, every second one
    at 2.5 mm.

    Raises
    ------
    NotGradable
        A slice lies outside the scan.
    """
    first = int(np.ceil(to_index.matrix[2, 2] * COMMISSURE_Z + to_index.offset[2]))
    step = max(1, round(LEVEL_STEP / image.GetSpacing()[2]))
    slices = (first, first + step, first + 2 * step)
    count = image.GetSize()[2]
    if slices[0] < 0 or slices[2] >= count:
        raise NotGradable(
            Reason.OUTSIDE_FIELD_OF_VIEW,
            f"slices {slices[0]} to {slices[2]} would be graded, the scan has 0 to {count - 1}",
        )
    return slices


def cut(image: sitk.Image, to_index: IndexMap, k: int, side: Side) -> Float32Array:
    """Resample one crop within slice `k`, without interpolation across slices.

    Returns
    -------
    ndarray, shape (112, 86), float32
        Row 0 anterior, column 0 medial on both sides: the right side is mirrored.
    """
    matrix, offset = _pixel_map(to_index, k, side)
    plane = image[:, :, k]
    plane.SetSpacing((1.0, 1.0))
    plane.SetOrigin((0.0, 0.0))
    plane.SetDirection((1.0, 0.0, 0.0, 1.0))
    transform = sitk.AffineTransform(matrix.ravel().tolist(), offset.tolist())
    crop = sitk.Resample(
        plane,
        (COLUMNS, ROWS),
        transform,
        sitk.sitkLinear,
        (0.0, 0.0),
        (1.0, 1.0),
        (1.0, 0.0, 0.0, 1.0),
    )
    return sitk.GetArrayFromImage(crop)


def corners(to_index: IndexMap, k: int, side: Side) -> tuple[tuple[float, float], ...]:
    """Outer corners of a crop as (column, row) in slice `k`.

    Anterior-medial, anterior-lateral, posterior-lateral, posterior-medial.
    """
    matrix, offset = _pixel_map(to_index, k, side)
    right, bottom = COLUMNS - 0.5, ROWS - 0.5
    outline = np.array([(-0.5, -0.5), (right, -0.5), (right, bottom), (-0.5, bottom)])
    return tuple((float(x), float(y)) for x, y in outline @ matrix.T + offset)


def _pixel_map(to_index: IndexMap, k: int, side: Side) -> tuple[Array, Array]:
    """Map a crop's (column, row) to (column, row) of slice `k`."""
    to_left = 1.0 if side is Side.LEFT else -1.0  # LPS: x grows to the patient's left
    pitch = np.array(
        [
            to_left * (LATERAL[1] - LATERAL[0]) / COLUMNS,
            (ANTERIOR[0] - ANTERIOR[1]) / ROWS,  # LPS: y grows backwards, like the rows
        ]
    )
    corner = np.array([to_left * LATERAL[0], -ANTERIOR[0]])
    matrix, offset = to_index.in_slice(k)
    return matrix * pitch, matrix @ (corner + pitch / 2) + offset
