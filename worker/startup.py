"""Start of a worker: logging, and the checks of template, TLS identity and models."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import sys
from typing import TYPE_CHECKING, Any

from celery.signals import setup_logging, worker_init, worker_process_init, worker_ready

from core.errors import EpvsError
from core.logs import configure_logging
from core.permissions import keep_files_private
from worker import services
from worker.app import GRADE_REVISION, QUEUES, app
from worker.grading.stages.template import load_template

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

log = logging.getLogger(__name__)


@setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    """Configure logging; connecting to the signal keeps Celery from doing so."""
    configure_logging(services.current().settings, "worker")


@worker_init.connect
def _keep_files_private(**_: Any) -> None:
    """Set the permissions of files before the pool's processes are forked."""
    keep_files_private()


@worker_init.connect
def _check_before_start(**_: Any) -> None:
    """Stop the worker unless the template is readable and both models pass the golden self-test.

    A worker that only delivers (``--queues epvs-delivery``) needs neither. The check runs in a
    process of its own: the parent must not use gRPC, whose threads do not survive its later forks.
    """
    configure_logging(services.current().settings, "worker")
    fork = multiprocessing.get_context("fork")
    passed, report = fork.Pipe(duplex=False)
    check = fork.Process(target=_check, args=(report,))
    check.start()
    report.close()
    check.join()
    if check.exitcode != 0:
        raise SystemExit(1)
    services.current().passed |= passed.recv()  # the pool's processes need not repeat the test


@worker_process_init.connect
def _prepare_process(**_: Any) -> None:
    """Prepare a child process for its first study."""
    # A full collection of the loaded libraries would take 0.1 s, about one in every study.
    gc.freeze()
    if _grades():
        services.current().reader.start()


@worker_ready.connect
def _report_ready(**_: Any) -> None:
    """Create the file that shows that the worker accepts work."""
    settings = services.current().settings
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    (settings.worker_ready_file if _grades() else settings.delivery_ready_file).touch()
    log.info("ready")


def _grades() -> bool:
    """Whether this worker takes studies to grade."""
    return QUEUES[GRADE_REVISION] in app.amqp.queues.consume_from


def _check(report: Connection) -> None:
    current = services.current()
    try:
        if current.settings.tls_identity is not None:
            current.settings.tls_identity.client_context()
        if _grades():
            load_template()
            _check_models(current)
    except EpvsError as error:
        log.error("the worker does not start: %s", error)  # noqa: TRY400 - the traceback would add nothing
        sys.exit(1)
    report.send(current.passed)


def _check_models(current: services.Services) -> None:
    check = current.check_models()
    log.info("models passed the golden self-test: %s", check)
    for model, refusal in check.refused_shadows.items():
        log.error("the shadow version of %s predicts nothing: %s", model, refusal)
