"""Gradings for tests of an attempt: a function in place of pipeline and models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from core.results import GradedStudy, NotGradedStudy, ShadowResult
    from core.studies import ClosedStudy

Pipeline: TypeAlias = "Callable[[ClosedStudy, datetime], GradedStudy | NotGradedStudy]"


@dataclass(frozen=True)
class ScriptedGrading:
    """Grades with a function; the shadow versions predict what is given."""

    pipeline: Pipeline
    shadows: tuple[ShadowResult, ...] = ()
    versions: Mapping[str, str] = field(default_factory=lambda: {"rating": "1", "severity": "1"})

    def grade(self, study: ClosedStudy, completed_at: datetime) -> GradedStudy | NotGradedStudy:
        """Call the function."""
        return self.pipeline(study, completed_at)

    def grade_in_shadow(self) -> tuple[ShadowResult, ...]:
        """Return what was given."""
        return self.shadows
