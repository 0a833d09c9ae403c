"""``python -m training reproduce rating``: the rating paper's evaluation on a synthetic cohort.

Everything in its section 3, in its order, each figure beside the paper's; and what the paper
leaves open: repetitions, a paired test, both Haar transforms, agreement, errors by count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.cohorts.examples import describe_cohort
from training.reproduction.rating import plots, subjects
from training.reproduction.rating import report as rating_report
from training.reproduction.rating.cross_validation import arms, run_jobs
from training.reproduction.rating.enhancement import study_enhancements
from training.reproduction.rating.results import errors_by_count, gather
from training.reproduction.work_folder import claim

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def reproduce_rating(
    work: Path,
    report: Path,
    *,
    site: Path | None = None,
    epochs: int = 300,
    seeds: int = 3,
    processes: int = 1,
) -> Iterator[str]:
    """Make the cohort, train every arm, measure the enhancements, write report and figures.

    Parameters
    ----------
    work : Path
        Keeps the cohort and the answers of every fold; a second run goes on where one stopped.
    report : Path
        The Markdown file; figures lie beside it.
    site : Path, optional
        Folder of a site's own cohort (`training.cohorts.site`), evaluated instead of a synthetic
        one.
    epochs : int
        Of each training; the paper's number by default.
    seeds : int
        Repetitions of the arms that are compared with each other.
    processes : int

    Yields
    ------
    str
        A line for each step that is done.

    Raises
    ------
    ConfigurationError
        `work` belongs to another cohort, or `site` is none.
    """
    folder = site or work / "pool"
    if site is None:
        yield from subjects.build_pool(folder, processes=processes)
    description = describe_cohort(folder)
    claim(work, description)
    chosen = [
        arm
        for arm in arms(epochs, seeds)
        if not arm.plan.count_weight or description.get("labels") != "grades"
    ]
    yield from run_jobs(work, folder, chosen, processes=processes)
    chosen_subjects = subjects.subjects_of(folder)
    results = {arm.name: gather(work, arm) for arm in chosen}
    report.parent.mkdir(parents=True, exist_ok=True)
    served = results["stationary"]
    errors = errors_by_count(served, plots.COUNT_EDGES)
    plots.draw_confusion(report.with_name("rating-confusion.png"), served)
    plots.draw_arms(report.with_name("rating-accuracy.png"), list(results.values()))
    plots.draw_errors(report.with_name("rating-errors.png"), errors)
    if site is None:
        plots.draw_examples(report.with_name("rating-cohort.png"), chosen_subjects)
        about = rating_report.synthetic_cohort(chosen_subjects, epochs, seeds)
        measured = study_enhancements(work / "enhancement.json", processes=processes)
        enhancements = [rating_report.enhancements(*measured)]
    else:  # where the EPVS of a site's own scans lie is not known
        about, enhancements = rating_report.site_cohort(chosen_subjects, description, epochs), []
    sections = [
        about,
        rating_report.accuracy(results),
        rating_report.ablation(results),
        *enhancements,
        rating_report.baseline(results),
        rating_report.agreement(served),
        rating_report.errors_near_boundaries(served, errors),
    ]
    report.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    yield f"wrote {report}"
