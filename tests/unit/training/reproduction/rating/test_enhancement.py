"""Contrast of single EPVS in artificial images."""

import numpy as np
import pytest

from training.reproduction.rating.enhancement import _measure


def test_contrast_to_noise_ratio_of_a_dot_on_a_chequerboard() -> None:
    share = np.zeros((60, 60), np.float32)
    share[30, 30] = 1.0
    image = 0.2 + 0.1 * (np.indices((60, 60)).sum(axis=0) % 2).astype(np.float32)
    image[30, 30] = 0.75
    measured = _measure(share, share, [image])
    assert measured is not None
    assert measured.contrast[0] == pytest.approx(0.5, abs=0.01)
    assert measured.cnr[0] == pytest.approx(10, rel=0.05)


def test_epvs_outside_the_crop_or_close_to_others_are_not_measured() -> None:
    image = np.zeros((60, 60), np.float32)
    assert _measure(np.full_like(image, 0.05), image, [image]) is None
    share = image.copy()
    share[30, 30] = 1.0
    assert _measure(share, np.ones_like(image), [image]) is None
