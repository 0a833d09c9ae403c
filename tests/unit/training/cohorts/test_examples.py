"""Examples: ratings of counts, and crops enhanced as in the node."""

import numpy as np

from training.cohorts.examples import crops_as_input, rating_of
from worker.grading.stages.rating.haar import ENHANCEMENTS, enhance


def test_ratings_of_counts() -> None:
    counts = np.array([0, 1, 10, 11, 20, 21, 40, 41, 90])
    assert rating_of(counts).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_crops_are_enhanced_as_in_the_node() -> None:
    crops = np.random.default_rng(0).integers(0, 65536, (1, 2, 112, 86)).astype(np.uint16)
    for method in ENHANCEMENTS:
        enhanced = crops_as_input(crops, method)
        assert enhanced.shape == (1, 2, 1, 112, 86)
        plain = (crops[0, 1] / 65535).astype(np.float32)
        assert np.allclose(enhanced[0, 1, 0], enhance(plain, method), atol=1e-6)
