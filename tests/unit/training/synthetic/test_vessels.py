"""Simulated EPVS: the counts agree with what is drawn."""

import numpy as np
import pytest
import SimpleITK as sitk

from core.results import Side
from training.synthetic.grids import PROTOCOLS, Grid, place
from training.synthetic.pose import Pose
from training.synthetic.vessels import VISIBLE_SHARE, Tube, draw_tubes, grow_epvs


@pytest.fixture
def grid() -> Grid:
    return place(np.random.default_rng(0), PROTOCOLS["rating-paper"], oblique_deg=5)


def _blobs(plane: np.ndarray) -> int:
    image = sitk.GetImageFromArray((plane > VISIBLE_SHARE).astype(np.uint8))
    labels = sitk.ConnectedComponent(image, True)
    return int(sitk.GetArrayViewFromImage(labels).max())


def _upright(grid: Grid, spacing_mm: float, count: int) -> list[Tube]:
    """Tubes along the slice normal, in a row, from slice 10 to slice 14."""
    tubes = []
    for number in range(count):
        foot = grid.origin_mm + grid.direction @ np.array([60 + number * spacing_mm, 100, 50.0])
        step = grid.direction[:, 2] * 10
        tubes.append(Tube(np.array([foot, foot + step, foot + 2 * step]), 0.8, Side.LEFT))
    return tubes


def test_number_of_blobs_equals_number_of_visible_tubes(grid: Grid) -> None:
    tubes = _upright(grid, spacing_mm=5, count=7)
    voxels = np.zeros((grid.slices, grid.rows, grid.columns), dtype=np.float32)
    visible = draw_tubes(tubes, grid, voxels, signal=1.0)
    assert [_blobs(plane) for plane in voxels] == visible.sum(axis=0).tolist()
    assert visible[:, 11:14].all()
    assert not visible[:, :9].any()
    assert not visible[:, 16:].any()


def test_tubes_are_visible_where_their_voxels_exceed_the_threshold(grid: Grid) -> None:
    rng = np.random.default_rng(3)
    pose = Pose(rng)
    for tube in grow_epvs(rng, 12, Side.RIGHT, pose):
        voxels = np.zeros((grid.slices, grid.rows, grid.columns), dtype=np.float32)
        visible = draw_tubes([tube], grid, voxels, signal=1.0)[0]
        assert (voxels.max(axis=(1, 2)) > VISIBLE_SHARE).tolist() == visible.tolist()


def test_cross_section_of_a_tube_is_preserved(grid: Grid) -> None:
    (tube,) = _upright(grid, spacing_mm=5, count=1)
    voxels = np.zeros((grid.slices, grid.rows, grid.columns), dtype=np.float32)
    draw_tubes([tube], grid, voxels, signal=1.0)
    per_slice = voxels[12].sum() * grid.pixel_mm**2
    assert per_slice == pytest.approx(np.pi * 0.8**2, rel=0.1)


def test_epvs_lie_apart_in_their_hemisphere() -> None:
    rng = np.random.default_rng(4)
    pose = Pose(rng)
    for side, sign in ((Side.LEFT, 1), (Side.RIGHT, -1)):
        tubes = grow_epvs(rng, 20, side, pose)
        centres = pose.to_mni(np.array([tube.points_mm[1] for tube in tubes]))
        assert len(tubes) == 20
        assert (centres[:, 0] * sign > 5).all()
        assert {tube.side for tube in tubes} == {side}
        apart = np.linalg.norm(centres[:, None, :2] - centres[None, :, :2], axis=-1)
        assert apart[np.triu_indices(20, 1)].min() > 0.5
