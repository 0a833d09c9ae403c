"""Simulated conditions: the harsh ranges exceed the training ranges."""

from dataclasses import fields

import numpy as np

from training.synthetic.acquisition import random_imperfections
from training.synthetic.conditions import HARSH, STANDARD
from training.synthetic.lesions import random_lesions
from training.synthetic.pose import Pose


def test_harsh_conditions_are_harsher_in_every_respect() -> None:
    for name, worst in (("noise", 1), ("bias", 1), ("motion_mm", 1), ("sampled", 0)):
        harsh, standard = getattr(HARSH, name)[worst], getattr(STANDARD, name)[worst]
        assert harsh < standard if name == "sampled" else harsh > standard
    for name in ("moved", "lacunes", "hyperintensities", "flow_voids", "shift_mm", "oblique_deg"):
        assert getattr(HARSH, name) > getattr(STANDARD, name)
    assert HARSH.epvs_signal[0] < STANDARD.epvs_signal[0]
    for field in fields(STANDARD.pose):
        assert getattr(HARSH.pose, field.name) > getattr(STANDARD.pose, field.name)


def test_draws_are_within_the_ranges() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_imperfections(rng, HARSH) for _ in range(400)]
    assert all(HARSH.noise[0] <= d.noise <= HARSH.noise[1] for d in drawn)
    assert all(HARSH.sampled[0] <= d.sampled <= HARSH.sampled[1] for d in drawn)
    moved = np.array([d.motion_mm > 0 for d in drawn])
    assert abs(moved.mean() - HARSH.moved) < 0.1
    pose = Pose(rng, HARSH.pose)
    numbers = [
        np.mean([len(random_lesions(rng, pose, c)) for _ in range(20)]) for c in (STANDARD, HARSH)
    ]
    assert numbers[0] < numbers[1]
