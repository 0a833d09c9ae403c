"""Pose of synthetic heads: the map between patient space and MNI space."""

import numpy as np

from training.synthetic.pose import Pose


def test_pose_is_inverted() -> None:
    pose = Pose(np.random.default_rng(1))
    points = np.array([[23.0, -2, 4], [-23, -2, 4], [0, -3, -4], [40, 30, 50]])
    assert np.abs(pose.to_mni(pose.to_patient(points)) - points).max() < 0.01


def test_pose_agrees_with_its_transform() -> None:
    pose = Pose(np.random.default_rng(2))
    points = np.array([[20.0, -10, 8], [-31, 22, -4], [3, 3, 40]])
    transformed = np.array([pose.transform.TransformPoint(p) for p in points.tolist()])
    assert np.abs(transformed - pose.to_mni(points)).max() < 1e-3
