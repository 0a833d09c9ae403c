"""The Celery tasks: grade one revision, deliver to one destination.

A message contains one opaque id; it may arrive late, twice or never. Each task first claims its row
in the database, and does nothing without a claim.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from core.errors import Unavailable
from worker import services
from worker.app import DELIVER, GRADE_REVISION, app
from worker.delivery.attempt import attempt_delivery
from worker.grading.attempt import attempt_grading

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.services import Services

log = logging.getLogger(__name__)


@app.task(name=GRADE_REVISION)
def grade_revision(revision_id: str) -> None:
    """Grade one revision of a study."""
    _attempt(attempt_grading, revision_id)


@app.task(name=DELIVER)
def deliver(delivery_id: str) -> None:
    """Send one report to one destination."""
    _attempt(attempt_delivery, delivery_id)


def _attempt(attempt: Callable[[Services, str], None], target_id: str) -> None:
    try:
        attempt(services.current(), target_id)
    except Unavailable as error:  # the notification is repeated
        log.warning("attempt abandoned target=%s: %s", target_id, error)
