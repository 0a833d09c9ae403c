"""``python -m training reproduce severity``: the severity paper's evaluation.

Cross-validation of depth and dropout, a final test on 39 subjects, the paper's recipe to the
letter, robustness; and what its readers could not know: where the EPVS truly lie.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from training import checkpoints
from training.cohorts.examples import describe_cohort, require_severity_labels
from training.reproduction.severity import plots as severity_plots
from training.reproduction.severity import report as severity_report
from training.reproduction.severity import subjects as severity_subjects
from training.reproduction.severity.jobs import (
    WHOLE,
    Effort,
    designs,
    final_job,
    folds_of,
    published_job,
    run_jobs,
)
from training.reproduction.severity.results import best_design, gather
from training.reproduction.severity.robustness import clever_scores
from training.reproduction.work_folder import claim
from training.severity.network import SeverityNet
from training.severity.saliency_scores import saliency_figures
from training.severity.scores import score_severities

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from training.cohorts.examples import Example
    from training.reproduction.severity.jobs import Job


def reproduce_severity(
    work: Path,
    report: Path,
    effort: Effort,
    *,
    site: Path | None = None,
    processes: int = 1,
) -> Iterator[str]:
    """Make the cohort, choose a design, train and test it, write report and figures.

    Parameters
    ----------
    work : Path
        Keeps the cohort and the answers of every training; a second run goes on where one stopped.
    report : Path
        The Markdown file; figures lie beside it.
    effort : Effort
        What the trainings may cost.
    site : Path, optional
        Folder of a site's own cohort (`training.cohorts.site`), evaluated instead of a synthetic
        one.
    processes : int

    Yields
    ------
    str
        A line for each step that is done.

    Raises
    ------
    ConfigurationError
        `work` belongs to another cohort; `site` is none, or lacks severities.
    """
    folder = site or work / "pool"
    if site is None:
        yield from severity_subjects.build_pool(folder, processes=processes)
    require_severity_labels(folder)
    description = describe_cohort(folder)
    claim(work, description)

    tried = designs(effort)
    trainings = [job for plan in tried.values() for job in folds_of(plan)]
    yield from run_jobs(work, folder, trainings, processes=processes)
    compared = {title: gather(work, folds_of(plan)) for title, plan in tried.items()}
    chosen = best_design(compared)
    final, published = final_job(tried[chosen], effort), published_job(effort)
    yield from run_jobs(work, folder, [final, published], processes=processes)
    (answers,), (to_the_letter,) = gather(work, [final]), gather(work, [published])

    subjects = severity_subjects.subjects_of(folder, WHOLE)
    tested = [subjects[i] for i in answers.test]
    yield from _measure_robustness(work, final, tested)
    robustness = np.array(json.loads((work / "clever.json").read_text(encoding="utf-8")))
    scores = score_severities(answers.probability, answers.count)
    report.parent.mkdir(parents=True, exist_ok=True)
    severity_plots.draw_test(report.with_name("severity-test.png"), answers, scores["auc"])
    severity_plots.draw_designs(
        report.with_name("severity-designs.png"),
        {title: [fold.auc for fold in folds] for title, folds in compared.items()},
    )
    sections = [
        severity_report.cohort(subjects, description, effort),
        severity_report.design(compared, chosen),
        severity_report.test(answers, scores),
        severity_report.to_the_letter(to_the_letter),
        severity_report.robustness(robustness),
        severity_report.agreement(answers),
    ]
    if all(e.severity_truth.size for e in tested):
        severity_plots.draw_saliency(
            report.with_name("severity-saliency.png"), tested, answers, answers.saliency
        )
        figures = [
            saliency_figures(saliency, e.severity_truth)
            for saliency, e in zip(answers.saliency, tested, strict=True)
        ]
        sections.append(severity_report.saliency(figures, answers))
    report.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    yield f"wrote {report}"


def _measure_robustness(work: Path, final: Job, tested: Sequence[Example]) -> Iterator[str]:
    """Score every tested subject by CLEVER, if that has not been done for this network."""
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
    stored.write_text(json.dumps(scores) + "\n", encoding="utf-8")
