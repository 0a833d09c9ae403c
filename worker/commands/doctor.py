"""Beside the flow: check what the worker talks to: broker, workers, Triton, every destination.

``python -m worker.commands.doctor`` writes one JSON object a line: name, ok, detail, remedy.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from core.destinations import DicomDestination, Hl7Destination
from core.errors import EpvsError
from core.settings import load_settings
from worker.app import app
from worker.delivery.dicom_scu import DicomScu
from worker.delivery.hl7.mllp import connect
from worker.services import Services

if TYPE_CHECKING:
    from core.settings import Settings

_WAIT_S = 3.0


def examine(settings: Settings) -> None:
    """Write one line for each dependency."""
    _check_workers()
    _check_models(settings)
    if not settings.destination_list:
        _say("destinations", False, "none", "Set EPVS_DESTINATIONS=AE@host:port.")
    for destination in settings.destination_list:
        if isinstance(destination, Hl7Destination):
            _check_receiver(destination, settings)
        elif not destination.is_sender:  # who that is, a study will tell
            _check_archive(destination, settings)


def _check_workers() -> None:
    try:
        answers = app.control.ping(timeout=_WAIT_S)
    except (OperationalError, OSError):
        _say("broker", False, "does not answer", "Start Redis or correct EPVS_BROKER_URL.")
        return
    _say("broker", True, "answers")
    remedy = "Start one: celery -A worker.app worker (epvs-node up does)."
    _say("workers", bool(answers), f"{len(answers)} take work", remedy)


def _check_models(settings: Settings) -> None:
    try:
        Services(settings).check_models(wait_s=_WAIT_S)
    except EpvsError as error:
        _say("Triton", False, error.message, error.remedy)
    else:
        _say("Triton", True, "both models answer their golden input as expected")


def _check_archive(destination: DicomDestination, settings: Settings) -> None:
    name = f"destination {destination.name}"
    try:
        DicomScu(
            destination,
            calling_ae=settings.ae_title,
            timeout_s=settings.network_timeout_s,
            identity=settings.tls_identity,
        ).echo()
    except EpvsError as error:
        remedy = error.remedy or "Check address, port, both AE titles, and that the PACS knows us."
        _say(name, False, error.message, remedy)
    else:
        _say(name, True, "answers C-ECHO")


def _check_receiver(destination: Hl7Destination, settings: Settings) -> None:
    """Connect and say nothing: a message would be filed, and HL7 knows none that asks."""
    name = f"destination {destination.name}"
    try:
        connect(destination, timeout_s=settings.network_timeout_s).close()
    except EpvsError as error:
        _say(name, False, error.message, error.remedy)
    else:
        _say(name, True, "takes a connection (no message was sent)")


def _say(name: str, ok: bool, detail: str, remedy: str = "") -> None:
    sys.stdout.write(json.dumps({"name": name, "ok": ok, "detail": detail, "remedy": remedy}))
    sys.stdout.write("\n")
    sys.stdout.flush()


def main() -> None:
    """Run the command."""
    logging.disable(logging.CRITICAL)  # the checks say it all
    try:
        examine(load_settings())
    except EpvsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
