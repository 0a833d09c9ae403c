"""Text that both reports share."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

AGREEMENT_COMMAND: Final = """\
A site computes the same values for its readers with
`python -m training agreement READER-A.csv READER-B.csv`."""


def synthetic_disclaimer(paper_scans: str) -> str:
    """Say what the comparison of a synthetic cohort with a paper shows, and what it does not."""
    return f"""\
**This evaluation uses synthetic heads with a known number of simulated EPVS; the paper's uses
{paper_scans}. The scores are given side by side to show what the same method achieves on each; they
do not show which is better. Not for clinical use.**"""


def registration_errors(facts: list[dict[str, Any]]) -> str:
    """Give the registration error of a synthetic cohort, from the facts of its examples."""
    errors = [fact["registration_error_mm"] for fact in facts]
    return f"""\
The registration error at the basal ganglia is {np.median(errors):.1f} mm (median; maximum
{max(errors):.1f} mm); the true position is not used."""
