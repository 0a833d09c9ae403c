"""FP16 against FP32 for the shipped networks, on golden inputs, extreme ones and a few scans.

``python -m tests.bench.precision`` does the same for 200 scans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bench.precision import FORMS, Model, deviations
from training.cohorts.folder import load_cohort
from training.cohorts.synthetic import CohortPlan, build_cohort

if TYPE_CHECKING:
    from training.cohorts.examples import Example


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """One head with few and one with many EPVS."""
    folder = tmp_path_factory.mktemp("cohort")
    for head in (1, 4):
        list(build_cohort(folder, CohortPlan(15016, "harsh"), range(head, head + 1)))
    return load_cohort(folder)


@pytest.mark.parametrize("name", ["rating", "severity"])
def test_fp16_predicts_what_fp32_predicts(name: str, scans: list[Example]) -> None:
    groups = set()
    for group, _, found in deviations(Model(name), scans):
        groups.add(group)
        for form in FORMS:
            assert found[form].within(), (group, form, found[form])
    assert groups == {"golden", "all 0", "all 1", "saturated", "one bright voxel", "scans"}
