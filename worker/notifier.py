"""Rings the doorbell: tells the workers through the broker that something waits in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kombu.exceptions import OperationalError

from core.errors import Unavailable
from worker.app import DELIVER, GRADE_REVISION, app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.outbox import OutboxItem

MAX_WAITING: Final = 100
"""Rings that may wait in the broker. What waits in SQL is rung again and again; a long queue of
studies must not fill the broker with repetitions."""

_TASKS: Final = {"revision": GRADE_REVISION, "delivery": DELIVER}
# One attempt, which the socket timeouts bound: the next sweep is the retry.
_ONE_ATTEMPT: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0}


def ring(items: Sequence[OutboxItem], broker_url: str) -> list[int]:
    """Publish one message for each of `items`, as far as the broker's queue has room.

    Returns
    -------
    list of int
        Ids of the outbox rows that were rung.

    Raises
    ------
    Unavailable
        The broker does not answer; whatever was published before that will be rung once more.
    """
    rung: list[int] = []
    if not items:
        return rung
    try:
        with app.connection_for_write(broker_url, transport_options=_ONE_ATTEMPT) as connection:
            queue = connection.default_channel.queue_declare(queue=app.conf.task_default_queue)
            for item in items[: max(0, MAX_WAITING - queue.message_count)]:
                app.send_task(_TASKS[item.kind], (item.target_id,), connection=connection)
                rung.append(item.id)
    except (OperationalError, OSError) as error:
        raise Unavailable(
            "broker", "The broker does not answer.", "Check EPVS_BROKER_URL."
        ) from error
    return rung
