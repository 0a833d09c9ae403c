"""Grading: the possible outcomes of one attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from core.results import GradedStudy, NotGradedStudy


@dataclass(frozen=True, slots=True)
class Graded:
    """The study was graded; `paths` are the files of its report's objects, in their order."""

    study: GradedStudy
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class NotGraded:
    """The study cannot be graded; `paths` are the files of its report, if it has one."""

    study: NotGradedStudy
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Postponed:
    """A service did not respond; the revision is queued again and the attempt is not charged."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The worker was stopped; the revision is queued again and the attempt is not charged."""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt failed and is charged; the revision is queued again while attempts are left."""

    code: str
    detail: str


Outcome = Graded | NotGraded | Postponed | GivenBack | AttemptFailed
