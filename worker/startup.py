"""When a worker starts: its log, and the proof that template and models are what they should be."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from typing import Any

from celery.signals import setup_logging, worker_init, worker_ready

from core.errors import EpvsError
from core.logs import configure_logging
from worker import services
from worker.grading.stages.template import load_template

log = logging.getLogger(__name__)


@setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    """Keep Celery from installing log handlers of its own."""
    configure_logging(services.current().settings, "worker")


@worker_init.connect
def _refuse_to_grade_wrongly(**_: Any) -> None:
    """Take no work before the template is read and both models have answered their golden input.

    The check runs in a process of its own: the parent must stay free of gRPC, whose threads do
    not survive the forks to come.
    """
    configure_logging(services.current().settings, "worker")
    check = multiprocessing.get_context("fork").Process(target=_check)
    check.start()
    check.join()
    if check.exitcode != 0:
        raise SystemExit(1)


@worker_ready.connect
def _say_ready(**_: Any) -> None:
    """Tell whoever started the worker that it takes work now."""
    settings = services.current().settings
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    settings.worker_ready_file.touch()
    log.info("ready")


def _check() -> None:
    try:
        load_template()
        current = services.current()
        if current.settings.tls_identity is not None:
            current.settings.tls_identity.client_context()
        current.check_models()
    except EpvsError as error:
        log.error("the worker does not start: %s", error)  # noqa: TRY400 - the text says it all
        sys.exit(1)
