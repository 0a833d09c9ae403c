"""A short run of the fuzzer of data sets."""

from __future__ import annotations

from tests.fuzz.elements import find_differences


def test_pydicom_reads_what_the_receiver_read() -> None:
    differences, tally = find_differences(seed=4711, n_examples=6000)
    assert differences == []
    assert tally["accepted"] > 500
    assert tally["refused"] > 500
