"""The services of one worker process: database engine, model client, pipeline.

Each is built on first use, because the worker forks and neither a database connection nor a gRPC
channel survives a fork. The parent process builds none of them; every child builds its own.
"""

from __future__ import annotations

import logging
import time
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

from core.errors import Unavailable
from core.settings import load_settings
from db.session import create_engine
from worker.grading.inference import InferenceClient
from worker.grading.pipeline import GradingOptions, grade_study
from worker.grading.reading import Reader
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from core.settings import Settings
    from worker.grading.attempt import Grading

MODEL_WAIT_S: Final = 600.0
"""How long a starting worker waits for Triton: loading the engines may take minutes."""
_WAIT_MESSAGE_S: Final = 10.0

log = logging.getLogger(__name__)


class Services:
    """Database connections, model client and pipeline of one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def engine(self) -> Engine:
        """Connections to the database."""
        return create_engine(self.settings.database_url)

    @cached_property
    def inference(self) -> InferenceClient:
        """Client of the model server."""
        settings = self.settings
        return InferenceClient.connect(
            settings.triton_url, settings.models_dir, settings.triton_timeout_s
        )

    @cached_property
    def reader(self) -> Reader:
        """Reads the files of studies, in processes of its own."""
        return Reader()

    @cached_property
    def grade(self) -> Grading:
        """The pipeline (`worker.grading.pipeline.grade_study`) with this process's parts."""
        return partial(
            grade_study,
            read=self.reader.read_study,
            inference=self.inference,
            template=load_template(),
            options=GradingOptions.from_settings(self.settings),
        )

    def check_models(self, wait_s: float = MODEL_WAIT_S) -> None:
        """Run the golden self-test of both models.

        Raises
        ------
        Unavailable
            Triton did not become ready within `wait_s`.
        Failed
            A model does not reproduce its golden output.
        """
        deadline = time.monotonic() + wait_s
        while True:
            try:
                self.inference.wait_ready(min(_WAIT_MESSAGE_S, wait_s))
                break
            except Unavailable as error:
                if time.monotonic() >= deadline:
                    raise
                log.info("waiting for Triton url=%s: %s", self.settings.triton_url, error.message)
        self.inference.check_golden()
        log.info("both models passed the golden self-test url=%s", self.settings.triton_url)


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
