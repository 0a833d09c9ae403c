"""Checks the worker's dependencies: broker, workers, Triton and every destination.

``python -m worker.commands.doctor`` writes one JSON object per line: name, ok, detail, remedy.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from core.destinations import DicomDestination, Hl7Destination
from core.errors import EpvsError
from core.links import describe_link
from core.settings import load_settings
from db import audit
from db.session import unit_of_work
from worker.app import DELIVER, GRADE_REVISION, QUEUES, app
from worker.audit_checkpoints import Sent, destinations, read_status
from worker.broker import UNAVAILABLE, is_encrypted
from worker.delivery.dicom_scu import DicomScu
from worker.delivery.hl7.mllp import probe
from worker.services import Services

if TYPE_CHECKING:
    from core.settings import Settings

_WAIT_S = 3.0
_ARCHIVE_REMEDY = "Check address, port, both AE titles, and that the PACS accepts this node."


def examine(settings: Settings) -> None:
    """Write one line for each dependency."""
    _check_workers(settings)
    _check_models(settings)
    if not settings.destination_list:
        _say("destinations", False, "none", "Set EPVS_DESTINATIONS=AE@host:port.")
    for destination in settings.destination_list:
        if isinstance(destination, Hl7Destination):
            _check_receiver(destination, settings)
        elif not destination.is_sender:  # known only when a study arrives
            _check_archive(destination, settings)
    _check_checkpoints(settings)


def _check_workers(settings: Settings) -> None:
    try:
        responses = app.control.broadcast("active_queues", reply=True, timeout=_WAIT_S)
    except UNAVAILABLE:
        _say("broker", False, "does not respond", "Start Redis or correct EPVS_BROKER_URL.")
        return
    url = settings.broker_url
    link = describe_link(urlsplit(url).hostname, is_encrypted=is_encrypted(url))
    _say("broker", True, f"responds, {link}")
    # One for each worker, of whatever name: hosts may have the same name.
    taken = Counter(
        queue["name"]
        for response in responses or ()
        for found in response.values()
        for queue in found
    )
    n_grading, n_delivering = taken[QUEUES[GRADE_REVISION]], taken[QUEUES[DELIVER]]
    _say(
        "workers",
        bool(n_grading and n_delivering),
        f"{n_grading} grade, {n_delivering} deliver",
        "Start one that does both: celery -A worker.app worker (epvs-node up does).",
    )


def _check_models(settings: Settings) -> None:
    try:
        check = Services(settings).check_models(wait_s=_WAIT_S, record=False)
    except EpvsError as error:
        _say("Triton", False, error.message, error.remedy)
    else:
        host = settings.triton_url.removeprefix("unix:").rpartition(":")[0]
        link = describe_link(host, is_encrypted=False)
        _say("Triton", True, f"the models reproduce their golden output ({check}), {link}")
        for model, refusal in check.refused_shadows.items():
            _say(f"shadow of {model}", False, refusal.message, refusal.remedy)


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
        _say(name, False, error.message, error.remedy or _ARCHIVE_REMEDY)
    else:
        link = describe_link(destination.host, is_encrypted=destination.tls)
        _say(name, True, f"responds to C-ECHO, {link}")


def _check_receiver(destination: Hl7Destination, settings: Settings) -> None:
    """Connect without sending: a message would be filed, and HL7 has no echo."""
    name = f"destination {destination.name}"
    try:
        probe(destination, settings.tls_identity, timeout_s=settings.network_timeout_s)
    except EpvsError as error:
        _say(name, False, error.message, error.remedy)
    else:
        link = describe_link(destination.host, is_encrypted=destination.tls)
        _say(name, True, f"accepts a connection, {link} (no message was sent)")


def _check_checkpoints(settings: Settings) -> None:
    """Compare what the housekeeper has sent with the newest audit event."""
    name = "audit checkpoints"
    if not settings.audit_key:
        _say(name, True, "none: whoever owns the database could rewrite the audit trail unnoticed")
        return
    try:
        with unit_of_work(Services(settings).engine, read_only=True) as session:
            newest, _ = audit.newest(session)
    except EpvsError as error:
        _say(name, False, error.message, error.remedy)
        return
    status = read_status(settings)
    for target in destinations(settings):
        sent = status.get(target, Sent())
        is_late = newest > sent.seq and sent.is_older_than(2 * settings.audit_interval_s)
        detail = f"event {sent.seq} of {sent.at}" if sent.seq else "nothing was sent yet"
        _say(
            f"{name} {target}",
            not (sent.problem or is_late),
            sent.problem or f"{detail}; {newest - sent.seq} events since",
            "Look at the housekeeper's log: does it run with EPVS_AUDIT_KEY?",
        )


def _say(name: str, ok: bool, detail: str, remedy: str = "") -> None:
    sys.stdout.write(json.dumps({"name": name, "ok": ok, "detail": detail, "remedy": remedy}))
    sys.stdout.write("\n")
    sys.stdout.flush()


def main() -> None:
    """Run the command."""
    logging.disable(logging.CRITICAL)  # the checks report every problem themselves
    try:
        examine(load_settings())
    except EpvsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
