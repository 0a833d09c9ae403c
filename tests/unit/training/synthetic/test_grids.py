"""Scan grids: position of the slices."""

import numpy as np
import pytest

from training.synthetic.grids import PROTOCOLS, place, sagittal


def test_points_and_image_share_the_geometry() -> None:
    grid = place(np.random.default_rng(0), PROTOCOLS["thin-slices"])
    image = grid.image(np.zeros((grid.slices, grid.rows, grid.columns)))
    point = np.array(image.TransformIndexToPhysicalPoint((30, 20, 10)))
    expected = [30 * grid.pixel_mm, 20 * grid.pixel_mm, 10 * grid.spacing_mm]
    assert grid.to_slice(point[None])[0] == pytest.approx(expected, abs=1e-3)


def test_axial_grids_are_centred_near_the_origin_with_little_tilt() -> None:
    for seed in range(20):
        grid = place(np.random.default_rng(seed), PROTOCOLS["severity-paper"])
        size = np.array([grid.columns - 1, grid.rows - 1, grid.slices - 1])
        spacing = np.array([grid.pixel_mm, grid.pixel_mm, grid.spacing_mm])
        centre = grid.origin_mm + grid.direction @ (size * spacing / 2)
        assert np.abs(centre).max() <= 8
        assert grid.direction[2, 2] > np.cos(np.deg2rad(9))
        assert 24 <= grid.slices <= 36


def test_sagittal_rows_run_to_posterior_and_columns_to_inferior() -> None:
    grid = sagittal(slices=3, size=4, pixel_mm=1.0, spacing_mm=5.0)
    assert grid.direction[:, 0].tolist() == [0, 1, 0]
    assert grid.direction[:, 1].tolist() == [0, 0, -1]
    assert np.linalg.det(grid.direction) == pytest.approx(1)
