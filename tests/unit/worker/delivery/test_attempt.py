"""Deliveries that are parked before anything is sent, and attempts that raise."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from core.errors import ConfigurationError, Unavailable
from core.results import ObjectKind
from core.settings import load_settings
from db.delivery.claims import DeliveryClaim, StoredObject
from worker.delivery import attempt
from worker.delivery.attempt import decide
from worker.delivery.outcomes import Parked, Postponed

if TYPE_CHECKING:
    from pathlib import Path


def _claim(path: Path, destination: str, sha256: str = "0" * 64) -> DeliveryClaim:
    item = StoredObject(ObjectKind.STRUCTURED_REPORT, "1.2", "1.3", "1.2.840", path, sha256)
    return DeliveryClaim("d", "r", destination, 1, 1, (item,), stored=False)


@pytest.mark.parametrize(
    ("destinations", "error"),
    [
        ("", "no longer names this destination"),
        ("PACS@127.0.0.1:1", "missing or changed"),
    ],
)
def test_what_only_an_operator_can_mend_is_parked_without_connecting(
    destinations: str, error: str, tmp_path: Path
) -> None:
    changed = tmp_path / "report.dcm"
    changed.write_bytes(b"not what was kept")
    settings = load_settings(destinations=destinations)
    outcome = decide(_claim(changed, "PACS@127.0.0.1:1"), settings)
    assert isinstance(outcome, Parked)
    assert error in outcome.error


@pytest.mark.parametrize(
    ("error", "stored"),
    [
        (Unavailable("PACS", "No association."), "No association."),
        (ConfigurationError("The certificate is gone.", "Renew it."), "The certificate is gone."),
        (SoftTimeLimitExceeded(), "the attempt took too long"),
        (ValueError("PatientName CANARY^ANNA"), "ValueError"),
    ],
)
def test_an_attempt_that_raises_is_postponed_without_patient_data(
    error: Exception, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object) -> None:
        raise error

    monkeypatch.setattr(attempt, "store", break_off)
    report = tmp_path / "report.dcm"
    report.write_bytes(b"as stored")
    settings = load_settings(destinations="PACS@127.0.0.1:1")
    claim = _claim(report, "PACS@127.0.0.1:1", hashlib.sha256(b"as stored").hexdigest())
    outcome = decide(claim, settings)
    assert isinstance(outcome, Postponed)
    assert stored in outcome.error
    assert "CANARY" not in outcome.error
