"""The Celery application of the worker.

Start it with ``celery -A worker.app worker``. After SIGTERM it finishes the studies in progress and
accepts no others; with ``REMAP_SIGTERM=SIGQUIT`` in the environment it gives them `SOFT_SHUTDOWN_S`
seconds instead, and an interrupted study is given back.

This module names the tasks and imports nothing of the pipeline, because the housekeeper publishes
notifications with it.
"""

from __future__ import annotations

import sys
from typing import Final

from celery import Celery
from kombu.entity import Exchange, Queue

from core import queues
from core.errors import ConfigurationError
from core.settings import Settings, load_settings
from worker import broker

GRADE_REVISION: Final = "grade_revision"
DELIVER: Final = "deliver"

QUEUES: Final = {GRADE_REVISION: queues.GRADING, DELIVER: queues.DELIVERY}
"""Queue of each task."""

SOFT_TIME_LIMIT_S: Final = 900
"""A task that runs longer fails, and its attempt is charged."""
HARD_TIME_LIMIT_S: Final = 960
"""A task that the soft limit cannot interrupt (native code) is killed with its process."""
SOFT_SHUTDOWN_S: Final = 30
MAX_MEMORY_MB: Final = 2048
"""A process with more resident memory is replaced after its task; it needs about 800 MB."""
_MEBIBYTE_IN_KIB: Final = 1024


def create_app(settings: Settings) -> Celery:
    """Configure Celery so that lost and repeated messages have no effect.

    A message only says that there is work: the database knows which work, how often it was
    attempted and when the next attempt is due. So there is no result backend, no ETA and no Celery
    retry. A message whose process died is dropped (``task_reject_on_worker_lost=False``):
    redelivering it would let a study that crashes its worker do so without limit, whereas the
    housekeeper repeats the notification only until no attempts are left.
    """
    app = Celery("epvs", broker=settings.broker_url, include=["worker.tasks", "worker.startup"])
    app.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=QUEUES[GRADE_REVISION],
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES.values()],
        task_routes={task: {"queue": name} for task, name in QUEUES.items()},
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_soft_time_limit=SOFT_TIME_LIMIT_S,
        task_time_limit=HARD_TIME_LIMIT_S,
        task_publish_retry=False,  # the next sweep is the retry
        worker_prefetch_multiplier=1,
        worker_max_tasks_per_child=50,
        worker_max_memory_per_child=MAX_MEMORY_MB * _MEBIBYTE_IN_KIB,
        worker_soft_shutdown_timeout=SOFT_SHUTDOWN_S,
        worker_proc_alive_timeout=60.0,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_use_ssl=broker.set_up(settings),
        broker_connection_timeout=5.0,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker survives any outage of its broker
        broker_channel_error_retry=True,
        broker_transport_options={
            # Without a list of unacknowledged messages in Redis, none is redelivered after an hour
            # (kombu's visibility timeout).
            "ack_emulation": False,
            "socket_connect_timeout": 5.0,
            "socket_timeout": 30.0,
            "socket_keepalive": True,
        },
    )
    return app


def _load_settings() -> Settings:
    try:
        return load_settings()
    except ConfigurationError as error:  # Celery's command line would print a traceback
        sys.exit(f"The worker cannot start: {error}")


app = create_app(_load_settings())
