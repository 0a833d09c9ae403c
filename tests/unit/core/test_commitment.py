"""What an N-EVENT-REPORT says."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from core.commitment import read_commitment_report


def _item(uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.3", uid
    if reason is not None:
        item.FailureReason = reason
    return item


def test_report_of_both_kinds() -> None:
    information = Dataset()
    information.TransactionUID = "2.25.1"
    information.ReferencedSOPSequence = [_item("2.25.2")]
    information.FailedSOPSequence = [_item("2.25.3", 0x0112), _item("2.25.4")]
    report = read_commitment_report(information)
    assert report.transaction_uid == "2.25.1"
    assert report.committed == {"2.25.2"}
    assert report.failed == {"2.25.3": 0x0112, "2.25.4": 0x0110}


def test_malformed_reports() -> None:
    with pytest.raises(ValueError, match="Transaction UID"):
        read_commitment_report(Dataset())
    information = Dataset()
    information.TransactionUID = "2.25.1"
    information.FailedSOPSequence = [Dataset()]
    with pytest.raises(ValueError, match="Referenced SOP Instance UID"):
        read_commitment_report(information)
