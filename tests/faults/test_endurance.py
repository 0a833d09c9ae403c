"""Two studies of the endurance test, one of them with a brain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.endurance import grade_all

if TYPE_CHECKING:
    from pathlib import Path


def test_every_study_ends_with_one_report(tmp_path: Path) -> None:
    rows, facts = grade_all(tmp_path, n_studies=2, share=2)
    assert facts["graded and delivered"] == facts["not graded, report delivered"] == 1
    assert facts["studies with exactly one SR"] == 2
    assert facts["failed"] == facts["unfinished files"] == facts["zombies"] == 0
    assert facts["pool processes"] == 1
    assert rows[-1]["pool process"] < 1500
