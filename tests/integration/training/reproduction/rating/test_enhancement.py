"""Contrast of EPVS in the crops of a synthetic scan.

This is an integration test because it generates and registers a whole scan.
"""

import numpy as np

from training.cohorts.examples import register_scan
from training.cohorts.synthetic import as_volume
from training.reproduction.rating.enhancement import _measure, epvs_in_crop
from training.synthetic.subjects import make_subject
from worker.grading.stages.rating import prepare_rating
from worker.grading.stages.template import load_template


def test_epvs_are_measured_where_the_crop_shows_them() -> None:
    subject = make_subject(7007, 2, "rating-paper")
    registration = register_scan(as_volume(subject), load_template())
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
