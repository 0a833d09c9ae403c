"""The scripted worker of the campaign: real in everything but the grading, which takes 0 to 2 s.

``python -m celery -A tests.faults.campaign.worker worker``
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from core.settings import load_settings
from tests.support.builders.made_study import make_graded
from tests.support.servers.scripted_worker import FOLDER_VARIABLE, ScriptedServices
from worker.app import app as app
from worker.services import install

if TYPE_CHECKING:
    from datetime import datetime

    from core.results import GradedStudy
    from core.studies import ClosedStudy

SLOW: int = 3
"""One study in so many takes time, in which its worker may be killed."""


class CampaignServices(ScriptedServices):
    """Grades every study, some of them slowly."""

    def _grade(self, study: ClosedStudy, completed_at: datetime) -> GradedStudy:
        del completed_at
        number = int(study.revision_id[:8], 16)
        if number % SLOW == 0:
            time.sleep(number % 2000 / 1000)
        return make_graded(study)


if FOLDER_VARIABLE in os.environ:
    install(CampaignServices(load_settings()))
