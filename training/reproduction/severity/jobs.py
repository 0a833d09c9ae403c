"""Training jobs of the severity reproduction: cross-validation of the designs and the final test.

Severity paper, Methods: depth and dropout were chosen by stratified cross-validation. The network
was then trained on 167 subjects, its epoch was chosen on 56, and it was tested once on 39. Every
training is a job with its own result file, so that an interrupted run resumes.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from training import checkpoints
from training.cohorts.examples import SEVERE_COUNT, volume_as_input
from training.reproduction.severity.results import JobResult
from training.reproduction.severity.subjects import Split, load_subjects, split_subjects
from training.reproduction.work_folder import missing_result, result_file, run_in_processes
from training.runs import copy_weights
from training.severity.recipe import SeverityPlan, SeverityTrainer, predict, validate
from training.storage import write_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.cohorts.examples import Example
    from training.reproduction.severity.designs import Budget
    from training.severity.network import SeverityNet

FOLDS: Final = 5


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes
    ----------
    name : str
    phases : tuple of SeverityPlan
    fold : int, optional
        Fold of the cross-validation; without it, the final split is used.
    """

    name: str
    phases: tuple[SeverityPlan, ...]
    fold: int | None = None

    def file(self, work: Path) -> Path:
        """Return the job's result file."""
        return result_file(work, self.name if self.fold is None else f"{self.name}-{self.fold}")

    def run(self, work: Path) -> Path:
        """Return the folder for the checkpoint, which only a final training has."""
        return self.file(work).with_suffix("")

    @property
    def plans(self) -> str:
        """The plans of all phases, as stored with the result."""
        return json.dumps([asdict(plan) for plan in self.phases])

    def result(self, work: Path) -> JobResult | None:
        """Read the result; None if there is none or it was trained with another plan."""
        path = self.file(work)
        if not path.exists():
            return None
        with np.load(path) as stored:
            if str(stored["plans"]) != self.plans:
                return None
            return JobResult(
                stored["probability"],
                stored["saliency"],
                stored["count"],
                stored["test"],
                int(stored["trained"]),
                int(stored["validated"]),
                float(stored["training_auc"]),
                float(stored["validation_auc"]),
                float(stored["seconds"]),
            )


def fold_jobs(plan: SeverityPlan) -> list[Job]:
    """Return the jobs of the cross-validation of one design."""
    name = f"{plan.layers}-layers-dropout-{plan.dropout:.0%}".rstrip("%")
    return [Job(name, (plan,), fold) for fold in range(FOLDS)]


def final_job(plan: SeverityPlan, budget: Budget) -> Job:
    """Return the job of the final test: the chosen design, on the window and on whole volumes."""
    whole = replace(budget.whole_phase(), layers=plan.layers, dropout=plan.dropout)
    return Job("final", (plan, whole))


def paper_job(budget: Budget) -> Job:
    """Return the job that follows the paper's exact recipe."""
    return Job("as-published", (budget.paper_recipe(),))


def run_jobs(work: Path, cohort: Path, jobs: Sequence[Job], *, processes: int) -> Iterator[str]:
    """Run all jobs that have no result yet.

    Parameters
    ----------
    work : Path
        Work folder.
    cohort : Path
        Folder of the cohort.
    jobs : sequence of Job
    processes : int

    Yields
    ------
    str
        One line per job.
    """
    missing = [job for job in jobs if job.result(work) is None]
    yield from run_in_processes(partial(_run, work, cohort), missing, processes=processes)


def load_results(work: Path, jobs: Sequence[Job]) -> list[JobResult]:
    """Read the results of jobs.

    Raises
    ------
    ConfigurationError
        A result is missing.
    """
    found = []
    for job in jobs:
        result = job.result(work)
        if result is None:
            raise missing_result(job.file(work))
        found.append(result)
    return found


def _run(work: Path, cohort: Path, job: Job) -> str:
    torch.set_num_threads(1)
    started = time.perf_counter()
    split = _split(cohort, job.fold)
    net = None
    for number, plan in enumerate(job.phases):
        subjects = _subjects(cohort, plan.window)
        net = _train(plan, subjects, split, net, seed=0 if job.fold is None else job.fold)
        if job.fold is None:
            checkpoints.save(job.run(work), {"phase": number, "weights": net.state_dict()})
    assert net is not None  # noqa: S101 - a job has a phase
    training, validation, tested = (
        [subjects[i] for i in part] for part in (split.training, split.validation, split.test)
    )
    found = validate(net, tested)
    write_arrays(
        job.file(work),
        probability=predict(net, tested),
        saliency=_saliency(net, tested),
        count=[e.severity_count for e in tested],
        test=split.test,
        trained=len(training),
        validated=len(validation),
        training_auc=validate(net, training).auc,
        validation_auc=validate(net, validation).auc if validation else np.nan,
        plans=job.plans,
        seconds=time.perf_counter() - started,
    )
    return f"{job.file(work).stem}: AUC {found.auc:.3f}, accuracy {found.accuracy:.3f}"


def _train(
    plan: SeverityPlan,
    subjects: Sequence[Example],
    split: Split,
    start: SeverityNet | None,
    seed: int,
) -> SeverityNet:
    """Train one phase; keeps the epoch with the best validation AUC, or else the last one."""
    trainer = SeverityTrainer(plan, seed)
    if start is not None:
        trainer.net.load_state_dict(start.state_dict())
    training = [subjects[i] for i in split.training]
    validation = [subjects[i] for i in split.validation]
    best, kept = -1.0, trainer.net.state_dict()
    for epoch in range(plan.epochs):
        trainer.epoch(epoch, training, first_phase=start is None)
        if validation:
            found = validate(trainer.net, validation)
            trainer.report_validation(found.loss)
            if found.auc >= best:
                best, kept = found.auc, copy_weights(trainer.net)
    trainer.net.load_state_dict(kept)
    return trainer.net.eval()


@torch.no_grad()
def _saliency(net: SeverityNet, examples: Sequence[Example]) -> NDArray[np.float32]:
    return np.concatenate(
        [net(torch.from_numpy(volume_as_input(e.volume[None])))[1].numpy() for e in examples]
    )


def _split(cohort: Path, fold: int | None) -> Split:
    severe = np.array([e.severity_count >= SEVERE_COUNT for e in _subjects(cohort, 0)])
    final = split_subjects(severe)
    if fold is None:
        return final
    known = np.concatenate([final.training, final.validation])
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(known, severe[known])
    training, test = list(parts)[fold]
    return Split(known[training], np.empty(0, dtype=np.int64), known[test])


@lru_cache(maxsize=2)
def _subjects(cohort: Path, window: int) -> tuple[Example, ...]:
    return tuple(load_subjects(cohort, window))
