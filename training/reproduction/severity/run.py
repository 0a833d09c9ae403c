"""Runs the severity reproduction: ``python -m training reproduce severity``.

Cross-validation of depth and dropout, a final test, the paper's exact recipe and robustness. For
synthetic cohorts it also compares the activation with the true positions of the EPVS.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from training import checkpoints
from training.cohorts.folder import describe_cohort, require_severity_labels
from training.markdown import wrap
from training.reproduction.severity import plots
from training.reproduction.severity import report as sections
from training.reproduction.severity.designs import WHOLE, Budget, designs
from training.reproduction.severity.jobs import (
    final_job,
    fold_jobs,
    load_results,
    paper_job,
    run_jobs,
)
from training.reproduction.severity.results import best_design
from training.reproduction.severity.robustness import clever_scores
from training.reproduction.severity.subjects import build_pool, load_subjects
from training.reproduction.work_folder import bind_to_cohort
from training.severity.network import SeverityNet
from training.severity.saliency_scores import saliency_figures
from training.severity.scores import score_severities
from training.storage import write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from training.cohorts.examples import Example
    from training.reproduction.severity.jobs import Job


def reproduce_severity(
    work: Path,
    report: Path,
    budget: Budget,
    *,
    site: Path | None = None,
    processes: int = 1,
) -> Iterator[str]:
    """Build the cohort, choose a design, train and test it, write the report.

    Parameters
    ----------
    work : Path
        Work folder with the cohort and the result of every training; a second run resumes.
    report : Path
        Markdown file to write; the plots are written to the same folder.
    budget : Budget
        Size and duration of the trainings.
    site : Path, optional
        Folder of a site's cohort (`training.cohorts.site`) to use instead of a synthetic one.
    processes : int

    Yields
    ------
    str
        One line per finished step.

    Raises
    ------
    ConfigurationError
        `work` belongs to another cohort; `site` is not a cohort, or lacks severity counts.
    """
    folder = site or work / "pool"
    if site is None:
        yield from build_pool(folder, processes=processes)
    require_severity_labels(folder)
    description = describe_cohort(folder)
    bind_to_cohort(work, description)

    plans = designs(budget)
    trainings = [job for plan in plans.values() for job in fold_jobs(plan)]
    yield from run_jobs(work, folder, trainings, processes=processes)
    compared = {title: load_results(work, fold_jobs(plan)) for title, plan in plans.items()}
    chosen = best_design(compared)
    final, paper = final_job(plans[chosen], budget), paper_job(budget)
    yield from run_jobs(work, folder, [final, paper], processes=processes)
    result, paper_result = load_results(work, [final, paper])

    subjects = load_subjects(folder, WHOLE)
    tested = [subjects[i] for i in result.test]
    yield from _measure_robustness(work, final, tested)
    robustness = np.array(json.loads((work / "clever.json").read_text(encoding="utf-8")))
    scores = score_severities(result.probability, result.count)
    plots.draw_test(report.with_name("severity-test.png"), result, scores["auc"])
    plots.draw_designs(
        report.with_name("severity-designs.png"),
        {title: [fold.auc for fold in folds] for title, folds in compared.items()},
    )
    text = [
        sections.cohort(subjects, description, budget),
        sections.design(compared, chosen),
        sections.test(result, scores),
        sections.paper_recipe(paper_result),
        sections.robustness(robustness),
        sections.agreement(result),
    ]
    if all(e.ground_truth.size for e in tested):
        plots.draw_saliency(report.with_name("severity-saliency.png"), tested, result)
        figures = [
            saliency_figures(saliency, e.ground_truth)
            for saliency, e in zip(result.saliency, tested, strict=True)
        ]
        text.append(sections.saliency(figures, result))
    report.write_text(wrap("\n\n".join(text)), encoding="utf-8")
    yield f"wrote {report}"


def _measure_robustness(work: Path, final: Job, tested: Sequence[Example]) -> Iterator[str]:
    """Compute the CLEVER score of every test subject, unless it is stored for this network."""
    stored, network = work / "clever.json", final.run(work) / "checkpoint.pt"
    if stored.is_file() and stored.stat().st_mtime > network.stat().st_mtime:
        return
    plan = final.phases[-1]
    net = SeverityNet(plan.layers, plan.width, plan.dropout)
    state: dict[str, Any] = checkpoints.require(final.run(work))
    net.load_state_dict(state["weights"])
    scores = []
    for number, score in enumerate(clever_scores(net, tested), 1):
        scores.append(score)
        yield f"CLEVER {number}/{len(tested)}: {score:.2f}"
    write_json(stored, scores)
