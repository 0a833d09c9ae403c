"""The rating recipe: it learns what it is shown, its parts do what they are named after."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.unit.training.dots import dots, dots_and_places
from training.datasets import Example
from training.networks.rating import RatingNet
from training.rating_recipe import (
    RatingData,
    RatingPlan,
    RatingTrainer,
    augment,
    in_cells,
    predict,
    worsen,
)

PLAN = RatingPlan(epochs=120, batch=12, rate=3e-3, enhancement="none")
COUNTS = np.array([0, 5, 15, 30, 60, 0])


def _examples(subjects: int) -> list[Example]:
    rng = np.random.default_rng(1)
    empty = np.empty(0, dtype=np.uint8)
    return [
        Example(np.stack([dots(int(c), rng) for c in COUNTS]), COUNTS, empty, 60)
        for _ in range(subjects)
    ]


def _data(subjects: int = 2) -> RatingData:
    return RatingData.of(_examples(subjects), "none")


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, loss="mse"),
        replace(PLAN, count_weight=1.0, averaging=0.9, balanced=True),
    ],
    ids=["cross-entropy", "mse", "extended"],
)
def test_a_handful_of_crops_is_learned(plan: RatingPlan) -> None:
    data = _data()
    trainer = RatingTrainer(plan)
    first, *_, last = [trainer.epoch(number, data) for number in range(plan.epochs)]
    assert last < first / 2
    predicted = predict(trainer.trained, data.crops)
    assert np.allclose(predicted.sum(axis=1), 1, atol=1e-5)
    assert (predicted.argmax(axis=1) == data.ratings.numpy()).all()


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    data = _data(1)
    weights = []
    for seed in (0, 0, 1):
        trainer = RatingTrainer(PLAN, seed)
        trainer.epoch(0, data)
        weights.append(trainer.net.score.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_subjects_keep_their_six_images_together() -> None:
    data = _data(3)
    second = data.of_subjects(np.array([False, True, False]))
    assert torch.equal(second.crops, data.crops[6:12])
    assert second.counts.tolist() == COUNTS.tolist()
    assert second.ratings.tolist() == [0, 1, 2, 3, 4, 0]


def test_worse_copies_have_ghosts_along_the_columns_and_noise() -> None:
    crops = np.full((6, 112, 86), 20_000, dtype=np.uint16)
    crops[:, 50:56, 40:46] = 60_000
    changes = np.stack(
        [worsen(np.random.default_rng(n), crops).astype(int) - crops for n in range(30)]
    )
    # Lines are acquired along the columns: what moves leaves its ghosts above and below itself.
    beside, along = (np.abs(part).mean() for part in (changes[..., :30], changes[:, :, :40, 40:46]))
    assert along > 1.2 * beside
    assert abs(changes.mean()) < 1_000  # nothing is added or lost
    noise = changes[..., :20].std(axis=(1, 2, 3)) / 65_535
    assert noise.min() < 0.006
    assert 0.015 < noise.max() < 0.05


def test_a_plan_may_add_copies_of_every_image() -> None:
    examples = _examples(1)
    data = RatingData.for_training(examples, replace(PLAN, worse_copies=2))
    assert data.ratings.tolist() == [0, 1, 2, 3, 4, 0] * 3
    assert torch.equal(data.crops[:6], RatingData.of(examples, "none").crops)
    assert not torch.equal(data.crops[6:12], data.crops[12:])


def test_places_are_turned_with_the_crop_and_summed_into_the_networks_cells() -> None:
    crops = torch.zeros(16, 2, 112, 86)
    crops[:, :, 30:33, 60:63] = 1 / 9
    turned = augment(crops, torch.Generator().manual_seed(0))
    assert torch.equal(turned[:, 0], turned[:, 1])
    cells = in_cells(turned[:, 1])
    assert cells.shape == (16, 28, 22)
    assert torch.allclose(cells.sum(dim=(1, 2)), torch.ones(16), atol=0.1)
    for image, cell in zip(turned[:, 0], cells, strict=True):
        row, column = np.unravel_index(int(image.argmax()), image.shape)
        cell_row, cell_column = np.unravel_index(int(cell.argmax()), cell.shape)
        assert abs(row // 4 - cell_row) <= 1
        assert abs(column // 4 - cell_column) <= 1
    _, _, places = RatingNet(counting=True).heads(crops[:, :1])
    assert places is not None
    assert places.shape == cells.shape


def test_a_network_that_counts_learns_where_epvs_lie() -> None:
    rng = np.random.default_rng(3)
    counts = np.array([0, 5, 15, 30, 45, 10])
    pairs = [dots_and_places(int(c), rng) for c in counts]
    crops, places = (np.stack(parts) for parts in zip(*pairs, strict=True))
    example = Example(crops, counts, np.empty(0, np.uint8), 60, places=places)
    plan = replace(PLAN, epochs=60, batch=6, counting=True, places_weight=10.0)
    data, trainer = RatingData.of([example], "none"), RatingTrainer(plan)
    for number in range(plan.epochs):
        trainer.epoch(number, data)
    with torch.no_grad():
        _, _, found = trainer.net.eval().heads(data.crops)
    assert found is not None
    truth = in_cells(data.places[:, 0].float())
    assert np.corrcoef(found.numpy().ravel(), truth.numpy().ravel())[0, 1] > 0.7
    assert np.corrcoef(found.sum(dim=(1, 2)).numpy(), counts)[0, 1] > 0.95


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
