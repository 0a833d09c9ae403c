"""Rating recipe: learning, reproducibility, augmentation and degraded copies."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.builders.dots import dots
from training.cohorts.examples import Example
from training.rating.recipe import (
    RatingData,
    RatingPlan,
    RatingTrainer,
    augment,
    degrade_crops,
    predict,
)

PLAN = RatingPlan(epochs=120, batch=12, rate=6e-3, enhancement="none", filters=(8, 16, 16, 32, 32))
COUNTS = np.array([0, 5, 15, 30, 60, 0])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Several threads are slower for a network of this size."""
    torch.set_num_threads(1)


def _examples(subjects: int) -> list[Example]:
    rng = np.random.default_rng(1)
    empty = np.empty(0, dtype=np.uint8)
    return [
        Example(np.stack([dots(int(c), rng) for c in COUNTS]), COUNTS, empty, 60)
        for _ in range(subjects)
    ]


def _data(subjects: int = 1) -> RatingData:
    return RatingData.of(_examples(subjects), "none")


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, loss="mse"),
        replace(PLAN, epochs=200, rate=1e-2, count_weight=1.0, averaging=0.9, balanced=True),
    ],
    ids=["cross-entropy", "mse", "extended"],
)
def test_a_few_crops_are_learned(plan: RatingPlan) -> None:
    data = _data()
    trainer = RatingTrainer(plan)
    first, *_, last = [trainer.epoch(number, data) for number in range(plan.epochs)]
    assert last < first / 2
    predicted = predict(trainer.trained, data.crops)
    assert np.allclose(predicted.sum(axis=1), 1, atol=1e-5)
    assert (predicted.argmax(axis=1) == data.ratings.numpy()).all()


def test_weights_are_determined_by_the_seed() -> None:
    data = _data()
    weights = []
    for seed in (0, 0, 1):
        trainer = RatingTrainer(PLAN, seed)
        trainer.epoch(0, data)
        weights.append(trainer.net.score.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_selecting_subjects_selects_their_six_images() -> None:
    data = _data(3)
    second = data.of_subjects(np.array([False, True, False]))
    assert torch.equal(second.crops, data.crops[6:12])
    assert second.counts.tolist() == COUNTS.tolist()
    assert second.ratings.tolist() == [0, 1, 2, 3, 4, 0]


def test_degraded_copies_have_ghosts_along_the_columns_and_noise() -> None:
    crops = np.full((6, 112, 86), 20_000, dtype=np.uint16)
    crops[:, 50:56, 40:46] = 60_000
    changes = np.stack(
        [degrade_crops(np.random.default_rng(n), crops).astype(int) - crops for n in range(30)]
    )
    # Phase encoding is along the columns, so ghosts appear above and below the bright square.
    beside, along = (np.abs(part).mean() for part in (changes[..., :30], changes[:, :, :40, 40:46]))
    assert along > 1.2 * beside
    assert abs(changes.mean()) < 1_000  # the mean intensity is preserved
    noise = changes[..., :20].std(axis=(1, 2, 3)) / 65_535
    assert noise.min() < 0.006
    assert 0.015 < noise.max() < 0.05


def test_degraded_copies_are_added_to_the_training_data() -> None:
    examples = _examples(1)
    data = RatingData.for_training(examples, replace(PLAN, degraded_copies=2))
    assert data.ratings.tolist() == [0, 1, 2, 3, 4, 0] * 3
    assert torch.equal(data.crops[:6], RatingData.of(examples, "none").crops)
    assert not torch.equal(data.crops[6:12], data.crops[12:])


def test_augmentation_rotates_about_the_centre_without_scaling() -> None:
    crops = torch.zeros(64, 1, 112, 86)
    crops[:, 0, 55:57, 42:44] = 1.0  # centre: stays
    crops[:, 0, 16:18, 42:44] = 1.0  # 39 pixels away: moves on a circle of that radius
    turned = augment(crops, torch.Generator().manual_seed(0))
    assert (turned[:, 0, 55:57, 42:44].mean(dim=(1, 2)) > 0.8).all()
    rows, columns = torch.meshgrid(torch.arange(112.0), torch.arange(86.0), indexing="ij")
    distance = torch.hypot(rows - 55.5, columns - 42.5)
    off_centre = turned[:, 0] * (distance > 5)
    radius = (off_centre * distance).sum(dim=(1, 2)) / off_centre.sum(dim=(1, 2))
    assert torch.allclose(radius, torch.full((64,), 39.0), atol=1.0)
    assert off_centre.sum(dim=(1, 2)).std() < 0.5
