"""Datasets: labels belong to the images that the node's own preprocessing cuts."""

from typing import Any

import numpy as np

from training.cohorts.examples import Example, crops_as_input, is_validation, rating_of
from worker.grading.stages.rating.haar import ENHANCEMENTS, enhance


def test_ratings_of_counts() -> None:
    counts = np.array([0, 1, 10, 11, 20, 21, 40, 41, 90])
    assert rating_of(counts).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_scans_of_a_head_are_never_on_both_sides_of_the_split() -> None:
    empty: Any = np.empty(0)
    examples = [
        Example(empty, empty, empty, 0, head=f"{head:05d}") for head in range(22) for _ in range(3)
    ]
    held_back = is_validation(examples)
    assert held_back.sum() == 6
    heads = [
        {e.head for e, h in zip(examples, held_back, strict=True) if h is np.bool_(v)}
        for v in (0, 1)
    ]
    assert not heads[0] & heads[1]


def test_crops_are_enhanced_as_the_node_enhances_them() -> None:
    crops = np.random.default_rng(0).integers(0, 65536, (2, 6, 112, 86)).astype(np.uint16)
    for method in ENHANCEMENTS:
        enhanced = crops_as_input(crops, method)
        assert enhanced.shape == (2, 6, 1, 112, 86)
        plain = (crops[1, 4] / 65535).astype(np.float32)
        assert np.allclose(enhanced[1, 4, 0], enhance(plain, method), atol=1e-6)
