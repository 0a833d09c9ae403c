"""Simulated acquisition: the effect of each imperfection."""

import numpy as np
import pytest
import SimpleITK as sitk

from training.synthetic.acquisition import Imperfections, degrade, sample
from training.synthetic.grids import PROTOCOLS, Grid, place


@pytest.fixture
def grid() -> Grid:
    return place(np.random.default_rng(0), PROTOCOLS["rating-paper"])


def _degrade(voxels: np.ndarray, grid: Grid, quality: Imperfections) -> np.ndarray:
    return degrade(np.random.default_rng(1), voxels.astype(np.float32), grid, quality)


def test_sampling_averages_through_the_slice(grid: Grid) -> None:
    """A ramp along the slice normal has the value of the slice's centre in every slice."""
    slope = grid.direction[:, 2]
    size, spacing = 160, 2.0
    at = (np.arange(size) - size / 2) * spacing
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    ramp = sitk.GetImageFromArray((x * slope[0] + y * slope[1] + z * slope[2]).astype(np.float32))
    ramp.SetSpacing([spacing] * 3)
    ramp.SetOrigin([float(at[0])] * 3)
    voxels = sample(ramp, sitk.Transform(), grid)
    middle = voxels[:, 150:230, 150:230]
    expected = grid.origin_mm @ slope + np.arange(grid.slices) * grid.spacing_mm
    assert np.abs(middle - expected[:, None, None]).max() < 0.05


def test_noise_in_air_is_rayleigh(grid: Grid) -> None:
    air = _degrade(np.zeros((4, 128, 128)), grid, Imperfections(noise=0.05))
    assert air.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02)
    assert air.min() >= 0


def test_bias_field_varies_within_its_bound(grid: Grid) -> None:
    flat = _degrade(np.ones((28, 128, 128)), grid, Imperfections(bias=0.3))
    assert np.abs(np.log(flat)).max() <= 0.3 + 1e-5
    assert flat.std() > 0.02


def test_truncated_k_space_rings_along_one_axis(grid: Grid) -> None:
    edge = np.zeros((1, 128, 128))
    edge[:, 40:90, 40:90] = 1
    ringing = _degrade(edge, grid, Imperfections(sampled=0.6))
    assert ringing[0, 38:92, 64].max() > 1.05
    assert np.abs(ringing[0, 64, :40]).max() < 0.02
    assert ringing.sum() == pytest.approx(edge.sum(), rel=0.05)


def test_motion_causes_ghosts_and_keeps_the_signal(grid: Grid) -> None:
    square = np.zeros((1, 128, 128))
    square[:, 50:78, 50:78] = 1
    moved = _degrade(square, grid, Imperfections(motion_mm=0.5))
    assert moved[0, 55:73, 55:73].mean() == pytest.approx(1, abs=0.1)
    assert moved[0, :40, 64].max() > 0.01
    assert moved[0, 64, :45].max() < 0.01
