"""The real Celery application with a grading pipeline that a test scripts for each study.

``python -m celery -A tests.support.servers.scripted_worker worker``. The folder ``SCRIPT_FOLDER``
holds one file for each study that is not to be graded normally, and records the attempts.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import Failed, Unavailable
from core.reasons import Reason
from core.results import GradedStudy, NotGradedStudy
from core.settings import load_settings
from tests.support.builders.gradings import ScriptedGrading
from tests.support.builders.made_study import make_graded
from tests.support.builders.records import INTENDED_USE
from tests.support.servers import poison
from worker.app import app as app
from worker.grading.model_versions import VersionsInUse
from worker.grading.pipeline import GradingOptions, add_not_graded_report
from worker.grading.reading.source import read_study_header
from worker.services import MODEL_WAIT_S, ModelCheck, Services, install

if TYPE_CHECKING:
    from datetime import datetime

    from core.studies import ClosedStudy
    from worker.grading.model_versions import Grading

FOLDER_VARIABLE = "SCRIPT_FOLDER"
SOFT_SHUTDOWN_VARIABLE = "SCRIPT_SOFT_SHUTDOWN_S"
TIME_LIMITS = "time-limits"
"""File of the script with soft and hard time limit in seconds, in place of the usual ones."""


class Script:
    """Folder through which a test and the worker processes communicate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, study_uid: str, act: str) -> None:
        """Set what grading this study does."""
        (self.folder / study_uid).write_text(act)

    def act(self, study_uid: str) -> str:
        """What grading this study does; empty for normal grading."""
        path = self.folder / study_uid
        return path.read_text() if path.exists() else ""

    def record_attempt(self, study_uid: str) -> None:
        """Record that a process began to grade this study."""
        with (self.folder / f"{study_uid}.tried").open("a") as file:
            file.write(f"{os.getpid()}\n")

    def tried(self, study_uid: str) -> int:
        """Number of times that a process began to grade this study."""
        path = self.folder / f"{study_uid}.tried"
        return len(path.read_text().splitlines()) if path.exists() else 0


class ScriptedServices(Services):
    """Real database and settings; grading does what the script says."""

    script = Script(Path(os.environ.get(FOLDER_VARIABLE, ".")))
    pause = threading.Event()

    def pin_models(self) -> Grading:
        """The pipeline."""
        return ScriptedGrading(self._grade)

    def _grade(self, study: ClosedStudy, completed_at: datetime) -> GradedStudy | NotGradedStudy:
        """Grade normally, unless the script says otherwise."""
        self.script.record_attempt(study.study_uid)
        act = self.script.act(study.study_uid)
        if act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if act.startswith("poison-"):
            poison.take(act, study, self.script.folder)
        if act == "unavailable":
            raise Unavailable("triton", "The model server does not answer.")
        if act == "fail":
            raise Failed("model-answer-invalid", "6 rows wanted")
        if act == "reject":
            result = NotGradedStudy(study.revision_id, Reason.NO_SUITABLE_SERIES, "")
            options = GradingOptions.from_settings(self.settings)
            return add_not_graded_report(
                result,
                study,
                read_study_header(study),
                completed_at,
                intended_use=INTENDED_USE,
                options=options,
            )
        if act == "defect":
            raise ValueError("PatientName CANARY^ANNA")
        if act == "slow":
            self.pause.wait(0.7)
        while self.script.act(study.study_uid) == "wait":
            self.pause.wait(0.05)  # libfaketime, which some tests use, breaks time.sleep
        return make_graded(study)

    def check_models(self, wait_s: float = MODEL_WAIT_S, *, record: bool = True) -> ModelCheck:
        """Pass or fail as the script says."""
        if self.script.act("models") == "wrong":
            raise Failed("golden-mismatch", "The rating model answers something else.")
        return ModelCheck(VersionsInUse({}, {}, frozenset()), {})


if SOFT_SHUTDOWN_VARIABLE in os.environ:
    app.conf.worker_soft_shutdown_timeout = float(os.environ[SOFT_SHUTDOWN_VARIABLE])
if FOLDER_VARIABLE in os.environ:  # set in worker processes only
    if limits := ScriptedServices.script.act(TIME_LIMITS):
        # As Celery's own options do not: the application's configuration takes precedence.
        app.conf.task_soft_time_limit, app.conf.task_time_limit = map(float, limits.split())
    install(ScriptedServices(load_settings()))
