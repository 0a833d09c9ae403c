"""Runs the rating reproduction: ``python -m training reproduce rating``.

It covers section 3 of the rating paper and adds repetitions, a paired test, both Haar transforms,
agreement and errors by count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.cohorts.folder import describe_cohort
from training.markdown import wrap
from training.reproduction.rating import plots
from training.reproduction.rating import report as sections
from training.reproduction.rating.configurations import configurations
from training.reproduction.rating.cross_validation import run_jobs
from training.reproduction.rating.enhancement import compare_enhancements
from training.reproduction.rating.results import errors_by_count, load_results
from training.reproduction.rating.subjects import build_pool, load_subjects
from training.reproduction.work_folder import bind_to_cohort

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def reproduce_rating(
    work: Path,
    report: Path,
    *,
    site: Path | None = None,
    epochs: int = 300,
    repetitions: int = 3,
    processes: int = 1,
) -> Iterator[str]:
    """Build the cohort, train all configurations, measure the enhancements, write the report.

    Parameters
    ----------
    work : Path
        Work folder with the cohort and the result of every fold; a second run resumes.
    report : Path
        Markdown file to write; the plots are written to the same folder.
    site : Path, optional
        Folder of a site's cohort (`training.cohorts.site`) to use instead of a synthetic one.
    epochs : int
        Epochs per training; the paper's number by default.
    repetitions : int
        Repetitions of the configurations that are tested against each other.
    processes : int

    Yields
    ------
    str
        One line per finished step.

    Raises
    ------
    ConfigurationError
        `work` belongs to another cohort, or `site` is not a cohort.
    """
    folder = site or work / "pool"
    if site is None:
        yield from build_pool(folder, processes=processes)
    description = describe_cohort(folder)
    bind_to_cohort(work, description)
    chosen = [
        each
        for each in configurations(epochs, repetitions)
        if not each.plan.count_weight or description.get("labels") != "grades"
    ]
    yield from run_jobs(work, folder, chosen, processes=processes)
    subjects = load_subjects(folder)
    results = {each.name: load_results(work, each) for each in chosen}
    served = results["stationary"]
    errors = errors_by_count(served, plots.COUNT_EDGES)
    plots.draw_confusion(report.with_name("rating-confusion.png"), served)
    plots.draw_accuracy(report.with_name("rating-accuracy.png"), list(results.values()))
    plots.draw_errors(report.with_name("rating-errors.png"), errors)
    if site is None:
        plots.draw_examples(report.with_name("rating-cohort.png"), subjects)
        cohort = sections.synthetic_cohort(subjects, epochs, repetitions)
        measured = compare_enhancements(work / "enhancement.json", processes=processes)
        enhancements = [sections.enhancements(*measured)]
    else:  # the positions of the EPVS in a site's scans are unknown
        cohort, enhancements = sections.site_cohort(subjects, description, epochs), []
    text = [
        cohort,
        sections.accuracy(results),
        sections.ablation(results),
        *enhancements,
        sections.baseline(results),
        sections.agreement(served),
        sections.errors_near_boundaries(served, errors),
    ]
    report.write_text(wrap("\n\n".join(text)), encoding="utf-8")
    yield f"wrote {report}"
