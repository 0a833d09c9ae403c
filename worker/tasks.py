"""The Celery tasks: grade the next revision, carry out the next delivery.

A message says that there is work; it may arrive late, twice or never. The database says which work
is next when a task starts, so nothing that waits in the broker decides the order. A task that finds
nothing to claim does nothing; one that did something asks for the next task, because what it has
finished may be what another waited for, and for the delivery of what it has graded.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from core.errors import Unavailable
from worker import services
from worker.app import DELIVER, GRADE_REVISION, app
from worker.broker import UNAVAILABLE
from worker.delivery.attempt import attempt_delivery
from worker.grading.attempt import attempt_grading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.services import Services

log = logging.getLogger(__name__)


@app.task(name=GRADE_REVISION)
def grade_revision(waiting_id: str) -> None:
    """Grade the revision that is next; `waiting_id` is one that waited."""
    _attempt(attempt_grading, waiting_id, then=(DELIVER, GRADE_REVISION))


@app.task(name=DELIVER)
def deliver(waiting_id: str) -> None:
    """Carry out the delivery that is next; `waiting_id` is one that waited."""
    _attempt(attempt_delivery, waiting_id, then=(DELIVER,))


def _attempt(attempt: Callable[[Services], bool], waiting_id: str, *, then: Sequence[str]) -> None:
    try:
        found = attempt(services.current())
    except Unavailable as error:  # the notification is repeated
        log.warning("attempt abandoned: %s", error)
        return
    if found:
        try:
            for task in then:
                app.send_task(task, (waiting_id,))
        except UNAVAILABLE:  # the housekeeper repeats the notification
            log.warning("the broker does not respond")
