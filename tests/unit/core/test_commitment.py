"""Reading N-EVENT-REPORTs, and the status of the response to each."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from core.commitment import CommitmentReport, read_commitment_report, respond_to_report
from core.errors import Unavailable


def _item(uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.3", uid
    if reason is not None:
        item.FailureReason = reason
    return item


def test_a_report_with_committed_and_failed_instances() -> None:
    information = Dataset()
    information.TransactionUID = "2.25.1"
    information.ReferencedSOPSequence = [_item("2.25.2")]
    information.FailedSOPSequence = [_item("2.25.3", 0x0112), _item("2.25.4")]
    report = read_commitment_report(information)
    assert report.transaction_uid == "2.25.1"
    assert report.committed == {"2.25.2"}
    assert report.failed == {"2.25.3": 0x0112, "2.25.4": 0x0110}


def test_malformed_reports_are_refused() -> None:
    with pytest.raises(ValueError, match="Transaction UID"):
        read_commitment_report(Dataset())
    information = Dataset()
    information.TransactionUID = "2.25.1"
    information.FailedSOPSequence = [Dataset()]
    with pytest.raises(ValueError, match="Referenced SOP Instance UID"):
        read_commitment_report(information)


@pytest.mark.parametrize(("known", "status"), [(True, 0x0000), (False, 0x0115)])
def test_an_unknown_transaction_is_an_invalid_argument(known: bool, status: int) -> None:
    information = Dataset()
    information.TransactionUID = "2.25.1"
    information.ReferencedSOPSequence = [_item("2.25.2")]
    settled: list[str] = []

    def settle(report: CommitmentReport) -> bool:
        settled.append(report.transaction_uid)
        return known

    assert respond_to_report(information, settle) == status
    assert settled == ["2.25.1"]


def test_a_malformed_report_is_not_recorded() -> None:
    def settle(report: CommitmentReport) -> bool:
        raise AssertionError(report)

    assert respond_to_report(Dataset(), settle) == 0x0115


def test_a_report_fails_while_the_database_is_unavailable() -> None:
    def settle(report: CommitmentReport) -> bool:
        raise Unavailable("database", "The database is not available.")

    information = Dataset()
    information.TransactionUID = "2.25.1"
    assert respond_to_report(information, settle) == 0x0110
