"""Answers of the severity trainings: cross-validated figures and the design that they choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from training.reproduction.severity.jobs import Answers, Job


def gather(work: Path, jobs: Sequence[Job]) -> list[Answers]:
    """Read the answers of jobs.

    Raises
    ------
    ConfigurationError
        One is missing.
    """
    found = []
    for job in jobs:
        answers = job.answers(work)
        if answers is None:
            raise ConfigurationError(
                f"{job.file(work).name} is missing or of another plan.",
                "Run the reproduction to its end; it resumes.",
            )
        found.append(answers)
    return found


def best_design(compared: Mapping[str, Sequence[Answers]]) -> str:
    """Title of the design with the best mean AUC of the held-out folds."""
    return max(compared, key=lambda title: np.mean([fold.auc for fold in compared[title]]))
