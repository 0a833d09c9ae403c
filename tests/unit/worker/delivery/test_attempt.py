"""What the answers of a destination mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.results import ObjectKind
from core.settings import load_settings
from db.delivery.deliveries import DeliveryClaim, StoredObject
from worker.delivery.attempt import decide
from worker.delivery.dicom_scu import Answer, interpret
from worker.delivery.outcomes import Parked

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (0x0000, Answer.STORED),
        (0xB000, Answer.STORED),
        (0xB007, Answer.STORED),
        (0x0107, Answer.STORED),
        (0xA700, Answer.TRY_LATER),
        (0xA7FF, Answer.TRY_LATER),
        (0x0110, Answer.TRY_LATER),
        (0x0111, Answer.UNKNOWN),
        (0xA900, Answer.REFUSED),
        (0xC000, Answer.REFUSED),
        (0xCFFF, Answer.REFUSED),
        (0x0122, Answer.REFUSED),
        (0x0124, Answer.REFUSED),
        (0xFE00, Answer.REFUSED),
    ],
)
def test_status_meaning(status: int, answer: Answer) -> None:
    assert interpret(status) is answer


def _claim(path: Path, destination: str) -> DeliveryClaim:
    item = StoredObject(ObjectKind.STRUCTURED_REPORT, "1.2", "1.3", "1.2.840", path, "0" * 64)
    return DeliveryClaim("d", "r", destination, 1, 1, (item,), stored=False)


@pytest.mark.parametrize(
    ("destinations", "error"),
    [
        ("", "does not name this destination"),
        ("PACS@127.0.0.1:1", "missing or changed"),
    ],
)
def test_what_only_a_person_can_mend_is_parked_without_calling(
    destinations: str, error: str, tmp_path: Path
) -> None:
    changed = tmp_path / "report.dcm"
    changed.write_bytes(b"not what was kept")
    settings = load_settings(destinations=destinations)
    outcome = decide(_claim(changed, "PACS@127.0.0.1:1"), settings)
    assert isinstance(outcome, Parked)
    assert error in outcome.error
