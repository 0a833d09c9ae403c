"""The services of one worker process: database engine, model client, pipeline.

Each is built on first use, because the worker forks and neither a database connection nor a gRPC
channel survives a fork. The parent process builds none of them; every child builds its own.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from core.errors import EpvsError, Unavailable
from core.settings import load_settings
from db.session import create_engine
from worker.grading.inference import InferenceClient
from worker.grading.inference.description import ModelDescription
from worker.grading.inference.gate import Gate
from worker.grading.inference.server import ModelServer
from worker.grading.model_versions import PinnedModels, VersionsInUse, pin_versions
from worker.grading.pipeline import GradingOptions
from worker.grading.reading import Reader
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine

    from core.settings import Settings
    from worker.grading.model_versions import Grading
    from worker.grading.records import Template

MODEL_WAIT_S: Final = 600.0
"""How long a starting worker waits for Triton: loading the engines may take minutes."""
_WAIT_MESSAGE_S: Final = 10.0
_RETRY_S: Final = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """The versions in use, whose reported ones may be used, and the shadows that may not."""

    versions: VersionsInUse
    refused_shadows: Mapping[str, EpvsError]

    def __str__(self) -> str:
        reported = [f"{model} {version}" for model, version in self.versions.reported.items()]
        shadows = [f"{model} {version}" for model, version in self.versions.shadows.items()]
        return ", ".join(reported) + (f"; in shadow {', '.join(shadows)}" if shadows else "")


class Services:
    """Database connections, model client and pipeline of one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.passed: set[str] = set()
        """SHA-256 of the ``model.json`` of the versions that passed the golden self-test. Child
        processes inherit it."""

    @cached_property
    def engine(self) -> Engine:
        """Connections to the database."""
        return create_engine(self.settings.database_url)

    @cached_property
    def model_server(self) -> ModelServer:
        """Connection to the model server."""
        return ModelServer(self.settings.triton_url, self.settings.triton_timeout_s)

    @cached_property
    def gate(self) -> Gate:
        """Admits the model versions that this process may use."""
        settings = self.settings
        return Gate(self.model_server, settings.models_dir, settings.trusted_digests, self.passed)

    @cached_property
    def reader(self) -> Reader:
        """Reads the files of studies, in processes of its own."""
        return Reader()

    @cached_property
    def template(self) -> Template:
        """The template to which scans are registered."""
        return load_template()

    def pin_models(self) -> Grading:
        """Return the pipeline with the model versions that are in use now.

        Raises
        ------
        Failed
            A reported version may not be used.
        Unavailable
            The database or Triton does not respond.
        """
        admitted, shadows = pin_versions(self.engine, self.settings.models_dir, self.gate)
        return PinnedModels(
            InferenceClient(self.model_server, **admitted),
            shadows,
            self.gate,
            read=self.reader.read_study,
            template=self.template,
            options=GradingOptions.from_settings(self.settings),
        )

    def check_models(self, wait_s: float = MODEL_WAIT_S, *, record: bool = True) -> ModelCheck:
        """Check origin and golden self-test of every version in use.

        Parameters
        ----------
        wait_s : float
            How long to wait for Triton and the database.
        record : bool
            Whether to record the highest versions as reported, where nothing is recorded yet.

        Returns
        -------
        ModelCheck
            The versions, and the shadow versions that may not be used.

        Raises
        ------
        Unavailable
            Triton or the database was not ready within `wait_s`.
        Failed
            A reported version may not be used.
        """
        models_dir = self.settings.models_dir
        deadline = time.monotonic() + wait_s
        while True:
            try:
                versions = VersionsInUse.read(self.engine, models_dir)
                described = [
                    ModelDescription.read(models_dir, *each) for each in versions.reported.items()
                ]
                self.model_server.wait_ready(described, min(_WAIT_MESSAGE_S, wait_s))
                break
            except Unavailable as error:
                if time.monotonic() >= deadline:
                    raise
                log.info("waiting: %s", error.message)
                time.sleep(_RETRY_S)
        for model, version in versions.reported.items():
            self.gate.admit(model, version)
        if record:
            pin_versions(self.engine, models_dir, self.gate)
        refused = {}
        for model, version in versions.shadows.items():
            try:
                self.gate.admit(model, version)
            except EpvsError as error:
                refused[model] = error
        return ModelCheck(versions, refused)


_current: Services | None = None


def current() -> Services:
    """Return the services of this process."""
    global _current
    if _current is None:
        _current = Services(load_settings())
    return _current


def install(services: Services) -> None:
    """Use `services` in this process and in the child processes that it forks from now on."""
    global _current
    _current = services
