"""The notifier: publishes the outbox's pending notifications to the workers, over the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.errors import Unavailable
from db.enums import OutboxKind
from worker.app import DELIVER, GRADE_REVISION, QUEUES, app
from worker.broker import UNAVAILABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.outbox import OutboxItem

MAX_QUEUED: Final = 100
"""Messages that may wait in each queue of the broker. Notifications are repeated while their
targets wait, so a long queue of studies must not fill the broker with repetitions."""

_TASKS: Final = {OutboxKind.REVISION: GRADE_REVISION, OutboxKind.DELIVERY: DELIVER}
# One attempt, limited by the socket timeouts: the next sweep is the retry.
_ONE_ATTEMPT: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0}


def notify(items: Sequence[OutboxItem], broker_url: str) -> list[int]:
    """Publish one message for each of `items`, up to `MAX_QUEUED` messages in each queue.

    Returns
    -------
    list of int
        Ids of the outbox rows for which a message was published.

    Raises
    ------
    Unavailable
        The broker does not respond; messages that were published before are published again.
    """
    notified: list[int] = []
    if not items:
        return notified
    try:
        with app.connection_for_write(broker_url, transport_options=_ONE_ATTEMPT) as connection:
            for kind, task in _TASKS.items():
                queue = connection.default_channel.queue_declare(queue=QUEUES[task])
                waiting = [item for item in items if item.kind is kind]
                for item in waiting[: max(0, MAX_QUEUED - queue.message_count)]:
                    app.send_task(task, (item.target_id,), connection=connection)
                    notified.append(item.id)
    except UNAVAILABLE as error:
        raise Unavailable(
            "broker", "The broker does not respond.", "Check EPVS_BROKER_URL."
        ) from error
    return notified
