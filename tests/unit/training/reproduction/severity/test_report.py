"""Report of the severity reproduction."""

import numpy as np

from training.cohorts.examples import Example
from training.reproduction.severity import report
from training.reproduction.severity.designs import Budget


def test_cohort_of_a_site() -> None:
    subjects = [Example(*[np.empty(0)] * 3, count) for count in (0, 4, 30)]  # type: ignore[arg-type, call-arg]
    text = report.cohort(subjects, {"kind": "site", "csv_sha256": "ab12"}, Budget())
    assert "Not for clinical use" in text
    assert "a site's cohort" in text
    assert "ab12" in text
    assert "3 subjects, 2 none-to-mild and 1 moderate-to-severe" in text
    assert "synthetic" not in text
