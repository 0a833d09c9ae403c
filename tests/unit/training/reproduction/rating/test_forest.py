"""Random-forest baseline: features of EPVS-like dots, and predicted probabilities."""

import numpy as np

from tests.support.builders.dots import dots
from training.reproduction.rating.forest import (
    PLACES,
    features_at_places,
    features_over_all_places,
    forest_probabilities,
)


def _images(counts: list[int]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([dots(count, rng) for count in counts]).astype(np.float32) / 65535


def test_features_are_at_the_same_places_in_every_image() -> None:
    images = _images([0, 30])
    features = features_at_places(np.stack([images[0], images[1], images[0]]))
    assert features.shape == (3, PLACES)
    assert np.array_equal(features[0], features[2])
    assert not np.array_equal(features[0], features[1])


def test_pooled_features_grow_with_the_number_of_dots() -> None:
    features = features_over_all_places(_images([0, 10, 40]))
    spread = features[:, 0]  # standard deviation of the first feature's responses
    assert spread[0] < spread[1] < spread[2]


def test_forest_predicts_probabilities_of_all_five_ratings() -> None:
    ratings = np.array([0, 1, 3, 0, 1, 3])
    features = ratings[:, None].astype(np.float32)
    train = np.array([True, True, True, True, False, False])
    probabilities = forest_probabilities(features, ratings, train, seed=0)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert probabilities[:, [2, 4]].sum() == 0
    assert (probabilities.argmax(axis=1) == ratings).all()
