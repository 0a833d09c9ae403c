"""Trainings of the severity reproduction: cross-validation of the design, then one final test.

Severity paper, Methods: depth and dropout were chosen by stratified cross-validation, the network
then trained on 167 subjects, its epoch chosen on 56, and scored once on 39. Every training is a job
that leaves one file, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from training import checkpoints
from training.cohorts.examples import SEVERE_COUNT, volume_as_input
from training.reproduction.jobs import share_out
from training.reproduction.severity.subjects import Split, split_of, subjects_of
from training.severity.recipe import PUBLISHED, SeverityPlan, SeverityTrainer, predict, validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.cohorts.examples import Example
    from training.severity.network import SeverityNet

FOLDS: Final = 5
DEPTH: Final = 152
"""The paper's choice."""
DEPTHS: Final = (50, 101, 152)
DROPOUTS: Final = (0.2, 0.4, 0.6)
_PAPER_DROPOUT: Final = 0.4
WHOLE: Final = 512


@dataclass(frozen=True)
class Effort:
    """How much is spent on the trainings.

    Attributes
    ----------
    width : int
        Filters of the stem; the paper's is 64.
    epochs : int
        On the central `window` of the volumes.
    whole_epochs : int
        On whole volumes after that; and of the paper's recipe, which has no other.
    window : int
    """

    width: int = 8
    epochs: int = 20
    whole_epochs: int = 4
    window: int = 224

    def central(self) -> SeverityPlan:
        """Plan of the first phase, and of the cross-validation."""
        return SeverityPlan(
            layers=DEPTH,
            width=self.width,
            window=self.window,
            epochs=self.epochs,
            batch=5,
        )

    def whole(self) -> SeverityPlan:
        """Plan of the second phase."""
        return replace(self.central(), window=WHOLE, epochs=self.whole_epochs, rate=5e-4, easy=0.0)

    def published(self) -> SeverityPlan:
        """Plan of the paper's recipe at this width."""
        return SeverityPlan(
            layers=DEPTH, width=self.width, window=WHOLE, epochs=self.whole_epochs, **PUBLISHED
        )


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes
    ----------
    name : str
    phases : tuple of SeverityPlan
    fold : int, optional
        Of the cross-validation; without it the final split is used.
    """

    name: str
    phases: tuple[SeverityPlan, ...]
    fold: int | None = None

    def file(self, work: Path) -> Path:
        """Where its answers lie; the checkpoint of a final training lies in a folder beside."""
        name = self.name if self.fold is None else f"{self.name}-{self.fold}"
        return work / "jobs" / f"{name}.npz"

    def run(self, work: Path) -> Path:
        """Folder of a final training's checkpoint."""
        return self.file(work).with_suffix("")

    @property
    def plans(self) -> str:
        """What it was trained by, as it is stored."""
        return json.dumps([asdict(plan) for plan in self.phases])

    def answers(self, work: Path) -> Answers | None:
        """Read what the job left; None where it has not been run, or with another plan."""
        path = self.file(work)
        if not path.exists():
            return None
        with np.load(path) as stored:
            if str(stored["plans"]) != self.plans:
                return None
            return Answers(
                stored["probability"],
                stored["saliency"],
                stored["count"],
                stored["test"],
                float(stored["training_auc"]),
                float(stored["validation_auc"]),
                float(stored["seconds"]),
            )


@dataclass(frozen=True)
class Answers:
    """Of one job about the subjects that it was tested on.

    Attributes
    ----------
    probability : ndarray, shape (tested,)
    saliency : ndarray, shape (tested, 1, rows, columns)
    count : ndarray, shape (tested,)
    test : ndarray, shape (tested,)
        Numbers of the subjects.
    training_auc, validation_auc : float
        Of the weights that were kept; the second is no number in the cross-validation, where
        nobody may choose the epoch.
    seconds : float
    """

    probability: NDArray[np.float64]
    saliency: NDArray[np.float32]
    count: NDArray[np.int64]
    test: NDArray[np.int64]
    training_auc: float
    validation_auc: float
    seconds: float

    @property
    def severe(self) -> NDArray[np.bool_]:
        """Which of the tested are moderate-to-severe."""
        return np.asarray(self.count >= SEVERE_COUNT)

    @property
    def called_severe(self) -> NDArray[np.bool_]:
        """Which of them the network calls so."""
        return np.asarray(self.probability >= 0.5)

    @property
    def outcomes(self) -> dict[str, NDArray[np.bool_]]:
        """Which of the tested are right and wrong in which way."""
        return {
            "true positive": self.severe & self.called_severe,
            "true negative": ~self.severe & ~self.called_severe,
            "false positive": ~self.severe & self.called_severe,
            "false negative": self.severe & ~self.called_severe,
        }

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(np.mean(self.severe == self.called_severe))

    @property
    def auc(self) -> float:
        """Area under the ROC curve of the tested."""
        return float(roc_auc_score(self.severe, self.probability))


def designs(effort: Effort) -> dict[str, SeverityPlan]:
    """Depths at the paper's dropout, and dropouts at the paper's depth."""
    plan = effort.central()
    depths = {
        f"{layers} layers, dropout {_PAPER_DROPOUT}": replace(plan, layers=layers)
        for layers in DEPTHS
    }
    dropouts = {
        f"{plan.layers} layers, dropout {dropout}": replace(plan, dropout=dropout)
        for dropout in DROPOUTS
    }
    return depths | dropouts


def folds_of(plan: SeverityPlan) -> list[Job]:
    """Jobs of one design's cross-validation."""
    name = f"{plan.layers}-layers-dropout-{plan.dropout:.0%}".rstrip("%")
    return [Job(name, (plan,), fold) for fold in range(FOLDS)]


def final_job(plan: SeverityPlan, effort: Effort) -> Job:
    """Training whose test is reported: the chosen design, first on the window, then on all."""
    whole = replace(effort.whole(), layers=plan.layers, dropout=plan.dropout)
    return Job("final", (plan, whole))


def published_job(effort: Effort) -> Job:
    """Train to the letter of the paper."""
    return Job("as-published", (effort.published(),))


def run_jobs(work: Path, cohort: Path, jobs: Sequence[Job], *, processes: int) -> Iterator[str]:
    """Run every job that has not been run yet.

    Parameters
    ----------
    work : Path
        Receives ``jobs/``.
    cohort : Path
        As `subjects_of` takes it.
    jobs : sequence of Job
    processes : int

    Yields
    ------
    str
        One line a job.
    """
    (work / "jobs").mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if job.answers(work) is None]
    yield from share_out(partial(_run, work, cohort), missing, processes=processes)


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
    tested = [subjects[i] for i in split.test]
    validation_auc = np.nan
    if len(split.validation):
        validation_auc = validate(net, [subjects[i] for i in split.validation]).auc
    unfinished = job.file(work).with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez_compressed(
            file,
            probability=predict(net, tested),
            saliency=_saliency(net, tested),
            count=[e.severity_count for e in tested],
            test=split.test,
            training_auc=validate(net, [subjects[i] for i in split.training]).auc,
            validation_auc=validation_auc,
            plans=job.plans,
            seconds=time.perf_counter() - started,
        )
    unfinished.rename(job.file(work))
    found = validate(net, tested)
    return f"{job.file(work).stem}: AUC {found.auc:.3f}, accuracy {found.accuracy:.3f}"


def _train(
    plan: SeverityPlan,
    subjects: Sequence[Example],
    split: Split,
    start: SeverityNet | None,
    seed: int,
) -> SeverityNet:
    """Train one phase; the epoch kept is the best on the validation subjects, or the last one."""
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
            trainer.note_validation(found.loss)
            if found.auc >= best:
                best = found.auc
                kept = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    trainer.net.load_state_dict(kept)
    return trainer.net.eval()


@torch.no_grad()
def _saliency(net: SeverityNet, examples: Sequence[Example]) -> NDArray[np.float32]:
    return np.concatenate(
        [net(torch.from_numpy(volume_as_input(e.volume[None])))[1].numpy() for e in examples]
    )


def _split(cohort: Path, fold: int | None) -> Split:
    severe = np.array([e.severity_count >= SEVERE_COUNT for e in _subjects(cohort, 0)])
    final = split_of(severe)
    if fold is None:
        return final
    known = np.concatenate([final.training, final.validation])
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(known, severe[known])
    training, test = list(parts)[fold]
    nobody = np.empty(0, dtype=np.int64)
    return Split(known[training], nobody, known[test])


@lru_cache(maxsize=2)
def _subjects(cohort: Path, window: int) -> tuple[Example, ...]:
    return tuple(subjects_of(cohort, window))
