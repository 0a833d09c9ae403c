"""EPVS are measured where the crop shows them."""

import numpy as np
import pytest

from training.cohorts.examples import align
from training.cohorts.synthetic import as_volume
from training.reproduction.rating.enhancement import _measure, epvs_in_crop
from training.synthetic.subjects import make_subject
from worker.grading.stages.rating import prepare_rating
from worker.grading.stages.template import load_template


def test_epvs_lie_where_the_crop_is_bright() -> None:
    subject = make_subject(7007, 2, "rating-paper")
    registration = align(as_volume(subject), load_template())
    rating = prepare_rating(as_volume(subject), registration, enhancement="none")
    brighter = []
    for crop, image in zip(rating.placements, rating.crops[:, 0], strict=True):
        shares = epvs_in_crop(subject, registration, crop)
        assert len(shares) == subject.counts(crop.side)[crop.slice_index]
        for share in shares:
            measured = _measure(share, np.max(shares, axis=0), [image, image[::-1, ::-1]])
            if measured:
                brighter.append(measured.contrast)
    here, elsewhere = np.array(brighter).T
    assert len(here) > 10
    assert np.mean(here > 0) > 0.95
    assert np.median(here) > 5 * abs(np.median(elsewhere))


def test_contrast_to_noise_of_a_dot_on_a_chequerboard() -> None:
    share = np.zeros((60, 60), np.float32)
    share[30, 30] = 1.0
    image = 0.2 + 0.1 * (np.indices((60, 60)).sum(axis=0) % 2).astype(np.float32)
    image[30, 30] = 0.75
    measured = _measure(share, share, [image])
    assert measured is not None
    assert measured.contrast[0] == pytest.approx(0.5, abs=0.01)
    assert measured.cnr[0] == pytest.approx(10, rel=0.05)


def test_an_epvs_outside_the_crop_or_among_others_is_not_measured() -> None:
    image = np.zeros((60, 60), np.float32)
    assert _measure(np.full_like(image, 0.05), image, [image]) is None
    share = image.copy()
    share[30, 30] = 1.0
    assert _measure(share, np.ones_like(image), [image]) is None
