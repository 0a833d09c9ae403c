"""Content and size of the pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from core.results import Level
from tests.support.builders.sources import Inputs, classic, inputs
from worker.grading.stages.report.pictures import render_slice, render_summary

if TYPE_CHECKING:
    from core.results import Grade
    from worker.grading.stages.report.overlay import RGBArray


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs(classic(tmp_path_factory.mktemp("source")))


def test_pages_show_grade_and_study_and_fit_a_screen(given: Inputs) -> None:
    def summary(grade: Grade, date: str, number: str) -> RGBArray:
        return render_summary(
            given.volume, grade, given.saliency, study_date=date, accession_number=number
        )

    page = summary(given.grade, "20260114", "A1")
    assert page.shape[1:] == (1024, 3)
    for grade, date, number in (
        (replace(given.grade, severity_probability=0.5), "20260114", "A1"),
        (given.grade, "20260115", "A1"),
        (given.grade, "20260114", "A2"),
        (given.grade, "", "番号"),
    ):
        other = summary(grade, date, number)
        assert other.shape == page.shape
        assert not np.array_equal(other, page)
    pages = [render_slice(given.volume, given.grade, given.saliency, level) for level in Level]
    assert all(page.shape[1] == 768 and page.shape[0] < 1200 for page in pages)
