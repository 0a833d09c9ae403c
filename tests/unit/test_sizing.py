"""The page on sizing shows what the bench computes from the last measured figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.sizing import (
    PAGE,
    RESULTS,
    Assumptions,
    Figures,
    capacity,
    purchase,
    tables,
    utilisation,
    with_tables,
)


@pytest.fixture
def figures() -> Figures:
    return Figures.parse(RESULTS.read_text())


def test_the_page_has_the_tables_of_the_last_measurement(figures: Figures) -> None:
    page = PAGE.read_text()
    assert with_tables(page, tables(figures, Assumptions())) == page


def test_figures_survive_being_written_and_read(figures: Figures) -> None:
    assert Figures.parse(figures.as_table()) == figures


def test_a_part_at_its_capacity_is_busy_once(figures: Figures) -> None:
    even = Assumptions(peak=1.0, hours=24.0)
    per_day = round(24 * capacity(figures, even)["core of grading workers"])
    busy = utilisation(per_day, figures, even)
    assert busy["grading workers, cores"] == pytest.approx(1.0, rel=1e-3)
    per_day = round(24 * capacity(figures, even)["audit trail (there is one)"])
    busy = utilisation(per_day, figures, even)
    assert busy["audit trail, share of one"] == pytest.approx(1.0, rel=1e-3)


def test_twice_the_work_needs_twice_the_cores(figures: Figures) -> None:
    made = replace(figures, worker_cpu_s_per_study=7.0)
    # 1,000 a day in 10 h, three times as many at the peak: 300 an hour, 0.0833 a second.
    assert purchase(1_000, made, Assumptions())["grading workers: cores"] == "1"
    assert purchase(100_000, made, Assumptions())["grading workers: cores"] == "84"
    doubled = replace(made, worker_cpu_s_per_study=14.0)
    assert purchase(100_000, doubled, Assumptions())["grading workers: cores"] == "167"
