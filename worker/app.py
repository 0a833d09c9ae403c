"""The doorbell's listener: the Celery application that grades and delivers.

Start it with ``celery -A worker.app worker``. SIGTERM lets the studies in hand end and takes no
other; with ``REMAP_SIGTERM=SIGQUIT`` in the environment it gives them `SOFT_SHUTDOWN_S` seconds
instead. What is cut off is taken up again when its lease has run out.

This module names the tasks and imports nothing of the pipeline: the housekeeper rings with it.
"""

from __future__ import annotations

import sys
from typing import Final

from celery import Celery
from kombu.transport.redis import Channel as RedisChannel

from core.errors import ConfigurationError
from core.settings import Settings, load_settings

GRADE_REVISION: Final = "grade_revision"
DELIVER: Final = "deliver"

SOFT_TIME_LIMIT_S: Final = 900
"""A task that runs longer ends as a failed attempt."""
HARD_TIME_LIMIT_S: Final = 960
"""A task stuck in native code, which the soft limit cannot reach, is killed with its process."""
SOFT_SHUTDOWN_S: Final = 30
_MEBIBYTE_IN_KIB: Final = 1024


# When the connection is lost, kombu 5.7 tries to put unacknowledged messages back over that very
# one, which ends the worker ("Unrecoverable error"). The housekeeper rings again anyway.
RedisChannel.do_restore = False


def create_app(settings: Settings) -> Celery:
    """Configure Celery so that losing a message, or hearing it twice, costs nothing.

    The broker only says that there is work: SQL knows which, how often it was tried and when it
    may be tried again. So there is no result backend, no ETA and no Celery retry; a message whose
    process died is dropped (``task_reject_on_worker_lost=False``), since redelivering it would let
    a poison study kill workers for ever, while the housekeeper rings again until the attempts
    are spent.
    """
    app = Celery("epvs", broker=settings.broker_url, include=["worker.tasks", "worker.startup"])
    app.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue="epvs",
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_soft_time_limit=SOFT_TIME_LIMIT_S,
        task_time_limit=HARD_TIME_LIMIT_S,
        task_publish_retry=False,  # the next sweep is the retry
        worker_prefetch_multiplier=1,
        worker_max_tasks_per_child=50,
        worker_max_memory_per_child=4096 * _MEBIBYTE_IN_KIB,
        worker_soft_shutdown_timeout=SOFT_SHUTDOWN_S,
        worker_proc_alive_timeout=60.0,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_timeout=5.0,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker outlives any outage of its broker
        broker_channel_error_retry=True,
        broker_transport_options={
            # Redis keeps no list of unacknowledged messages, so none comes back after an hour
            # (kombu's visibility timeout) to be worked on twice.
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
    except ConfigurationError as error:  # Celery's own command line would print a traceback
        sys.exit(f"The worker cannot start: {error}")


app = create_app(_load_settings())
