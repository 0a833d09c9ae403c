"""Split of the severity reproduction."""

import numpy as np

from training.reproduction.severity.subjects import split_subjects


def test_split_has_the_sizes_and_class_shares_of_the_paper() -> None:
    severe = np.arange(262) < 119
    split = split_subjects(severe)
    assert [len(part) for part in split] == [167, 56, 39]
    assert sorted(np.concatenate(split)) == list(range(262))
    assert [round(severe[part].mean(), 2) for part in split] == [0.46, 0.45, 0.46]
