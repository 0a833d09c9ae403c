"""Deliveries that are parked before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.results import ObjectKind
from core.settings import load_settings
from db.delivery.claims import DeliveryClaim, StoredObject
from worker.delivery.attempt import decide
from worker.delivery.outcomes import Parked

if TYPE_CHECKING:
    from pathlib import Path


def _claim(path: Path, destination: str) -> DeliveryClaim:
    item = StoredObject(ObjectKind.STRUCTURED_REPORT, "1.2", "1.3", "1.2.840", path, "0" * 64)
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
