"""The model versions of one attempt: read from SQL at its start, and pinned until its end.

A study in hand is finished by the versions that it was begun with, whatever is promoted meanwhile;
the next attempt reads again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from core.model_versions import newest_version
from db import model_use
from db.clock import current_time
from db.enums import ModelRole
from db.session import unit_of_work
from worker.grading.inference.description import MODELS, ModelDescription, invalid_description
from worker.grading.pipeline import grade_study
from worker.grading.shadow import grade_in_shadow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Engine

    from core.results import GradedStudy, NotGradedStudy, ShadowResult
    from core.studies import ClosedStudy
    from worker.grading.inference import InferenceClient
    from worker.grading.inference.gate import Gate
    from worker.grading.pipeline import GradingOptions
    from worker.grading.records import ModelRun, Reading, Template


class Grading(Protocol):
    """How one attempt grades its study; `PinnedModels` does it."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Reported version by model."""
        ...

    def grade(self, study: ClosedStudy, completed_at: datetime) -> GradedStudy | NotGradedStudy:
        """Run the pipeline."""
        ...

    def grade_in_shadow(self) -> tuple[ShadowResult, ...]:
        """Let the shadow versions predict, after the result is stored."""
        ...


@dataclass(frozen=True, slots=True)
class VersionsInUse:
    """Versions by model, as SQL has them."""

    reported: Mapping[str, str]
    shadows: Mapping[str, str]
    undecided: frozenset[str]
    """Models of which SQL has no reported version yet: `reported` has the highest one."""

    @classmethod
    def read(cls, engine: Engine, models_dir: Path) -> VersionsInUse:
        """Read the versions of every model.

        Raises
        ------
        Unavailable
            The database does not respond.
        Failed
            Nothing is recorded, and the folder of a model has no version.
        """
        with unit_of_work(engine, read_only=True) as session:
            recorded = model_use.read_versions(session, ModelRole.REPORTED)
            shadows = model_use.read_versions(session, ModelRole.SHADOW)
        undecided = frozenset(MODELS) - recorded.keys()
        try:
            newest = {model: newest_version(models_dir / model) for model in sorted(undecided)}
        except OSError as error:
            raise invalid_description(models_dir, error) from None
        return cls({**recorded, **newest}, shadows, undecided)


def pin_versions(
    engine: Engine, models_dir: Path, gate: Gate
) -> tuple[Mapping[str, ModelDescription], Mapping[str, str]]:
    """Return the reported versions, admitted by the gate, and the shadow versions.

    Where nothing is recorded yet, the highest versions are recorded as reported: what a node did
    before it could be told.

    Raises
    ------
    Failed, Unavailable
        A reported version may not be used, or a service does not respond.
    """
    versions = VersionsInUse.read(engine, models_dir)
    admitted = {model: gate.admit(model, version) for model, version in versions.reported.items()}
    if versions.undecided:
        with unit_of_work(engine) as session:
            first = {model: versions.reported[model] for model in sorted(versions.undecided)}
            model_use.record_first(session, first, now=current_time(session))
        return pin_versions(engine, models_dir, gate)  # another worker may have been faster
    return admitted, versions.shadows


class PinnedModels:
    """Grades one study with the versions that were in use when its attempt began.

    Parameters
    ----------
    inference : InferenceClient
        The reported versions.
    shadows : mapping
        Shadow version by model.
    gate : Gate
    read : callable
        Reads the study's files.
    template : Template
    options : GradingOptions
    """

    def __init__(
        self,
        inference: InferenceClient,
        shadows: Mapping[str, str],
        gate: Gate,
        *,
        read: Callable[[ClosedStudy], Reading],
        template: Template,
        options: GradingOptions,
    ) -> None:
        self._inference = inference
        self._shadows = shadows
        self._gate = gate
        self._read = read
        self._template = template
        self._options = options
        self._run: ModelRun | None = None

    @property
    def versions(self) -> Mapping[str, str]:
        """Reported version by model."""
        return {model.name: model.version for model in self._inference.models}

    def grade(self, study: ClosedStudy, completed_at: datetime) -> GradedStudy | NotGradedStudy:
        """Run the pipeline: `worker.grading.pipeline.grade_study`."""
        return grade_study(
            study,
            completed_at,
            read=self._read,
            inference=self._inference,
            template=self._template,
            options=self._options,
            keep=self._keep if self._shadows else None,
        )

    def grade_in_shadow(self) -> tuple[ShadowResult, ...]:
        """Let the shadow versions predict on what the reported ones were given."""
        if self._run is None:
            return ()
        return grade_in_shadow(self._shadows, self._run, self._inference, self._gate)

    def _keep(self, run: ModelRun) -> None:
        self._run = run
