"""Simulated lesions: signal inside, and nothing changed away from them."""

import numpy as np
import pytest

from training.synthetic.grids import PROTOCOLS, place
from training.synthetic.lesions import Lesion, draw_lesions


@pytest.mark.parametrize("rim", [0.0, 0.5])
def test_lesion_is_drawn_at_its_position(rim: float) -> None:
    grid = place(np.random.default_rng(0), PROTOCOLS["rating-paper"])
    centre = grid.origin_mm + grid.direction @ np.array([100.0, 80.0, 14 * grid.spacing_mm])
    lesion = Lesion(centre, np.full(3, 4.0), np.eye(3), signal=1.0, rim=rim)
    voxels = np.full((grid.slices, grid.rows, grid.columns), 0.3, dtype=np.float32)
    draw_lesions([lesion], grid, voxels)
    row, column = round(80 / grid.pixel_mm), round(100 / grid.pixel_mm)
    assert voxels[14, row, column] > 0.9
    edge = voxels[14, row, column + round(5 / grid.pixel_mm)]  # 1 mm outside
    assert edge > 0.4 if rim else edge < 0.4
    assert np.abs(voxels[14, :, : column - 30] - 0.3).max() < 1e-6
    assert np.abs(voxels[[8, 20]] - 0.3).max() < 1e-6
