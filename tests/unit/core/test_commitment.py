"""Reading N-EVENT-REPORTs, who may send them, and the status of the response to each."""

from __future__ import annotations

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from core.commitment import (
    CommitmentReport,
    Reporter,
    ReportRefusal,
    read_commitment_report,
    respond_to_report,
)
from core.destinations import parse_dicom_destination
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


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (None, 0x0000),
        (ReportRefusal.UNKNOWN_TRANSACTION, 0x0115),
        (ReportRefusal.NOT_AUTHORISED, 0x0124),
    ],
)
def test_a_refused_report_is_counted_and_gets_its_status(
    refusal: ReportRefusal | None, status: int
) -> None:
    information = Dataset()
    information.TransactionUID = "2.25.1"
    information.ReferencedSOPSequence = [_item("2.25.2")]
    settled: list[str] = []
    refused: list[ReportRefusal] = []

    def settle(report: CommitmentReport) -> ReportRefusal | None:
        settled.append(report.transaction_uid)
        return refusal

    assert respond_to_report(information, settle, refused.append) == status
    assert settled == ["2.25.1"]
    assert refused == ([refusal] if refusal else [])


def test_a_malformed_report_is_not_recorded() -> None:
    def settle(report: CommitmentReport) -> None:
        raise AssertionError(report)

    refused: list[ReportRefusal] = []
    assert respond_to_report(Dataset(), settle, refused.append) == 0x0115
    assert refused == [ReportRefusal.MALFORMED]


def test_a_report_fails_while_the_database_is_unavailable() -> None:
    def settle(report: CommitmentReport) -> None:
        raise Unavailable("database", "The database is not available.")

    information = Dataset()
    information.TransactionUID = "2.25.1"
    refused: list[ReportRefusal] = []
    assert respond_to_report(information, settle, refused.append) == 0x0110
    assert not refused


PLAIN = "ARCHIVE@192.0.2.7:104"
TLS = "ARCHIVE@archive.example:2762?tls=1"
NAMES = frozenset({"archive.example", "192.0.2.7"})
CASES: dict[str, tuple[str, Reporter, bool]] = {
    "itself": (PLAIN, Reporter("ARCHIVE", "192.0.2.7"), True),
    "padded title": (PLAIN, Reporter("ARCHIVE ", "192.0.2.7"), True),
    "IPv4-mapped": (PLAIN, Reporter("ARCHIVE", "::ffff:192.0.2.7"), True),
    "IPv6": ("ARCHIVE@[2001:db8::7]:104", Reporter("ARCHIVE", "2001:db8:0::7"), True),
    "other title": (PLAIN, Reporter("OTHER", "192.0.2.7"), False),
    "other address": (PLAIN, Reporter("ARCHIVE", "192.0.2.8"), False),
    "any certificate without TLS": (PLAIN, Reporter("OTHER", "192.0.2.8", NAMES), False),
    "certificate": (TLS, Reporter("OTHER", "192.0.2.8", NAMES), True),
    "tlsname": (f"{TLS}&tlsname=PACS.example", Reporter("A", "192.0.2.8", NAMES), False),
    "no certificate": (
        "ARCHIVE@192.0.2.7:2762?tls=1",
        Reporter("ARCHIVE", "192.0.2.7"),
        False,
    ),
    "listed": (f"{PLAIN}?reporter=NODE2@192.0.2.0/24", Reporter("NODE2", "192.0.2.9"), True),
    "listed elsewhere": (
        f"{PLAIN}?reporter=NODE2@192.0.2.9",
        Reporter("NODE2", "192.0.2.1"),
        False,
    ),
    "listed with a certificate": (
        f"{PLAIN}?reporter=NODE2@192.0.2.9?certificate=node2.example",
        Reporter("NODE2", "192.0.2.9", NAMES),
        False,
    ),
    "called": (PLAIN, Reporter("ARCHIVE", "192.0.2.7", called="ARCHIVE@192.0.2.7:104"), True),
    "another that was called": (
        PLAIN,
        Reporter("ARCHIVE", "192.0.2.7", called="ARCHIVE@192.0.2.7:105"),
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_who_may_report_for_a_destination(name: str) -> None:
    destination, reporter, expected = CASES[name]
    assert reporter.may_report_for(parse_dicom_destination(destination)) is expected


def test_a_destination_that_the_node_calls_has_the_name_in_its_certificate() -> None:
    called = Reporter.called_by_node(parse_dicom_destination(f"{TLS}&tlsname=PACS.example"))
    assert called.certificate_names == {"pacs.example"}
    assert Reporter.called_by_node(parse_dicom_destination(PLAIN)).certificate_names == frozenset()


def test_a_damaged_report_is_malformed() -> None:
    """A sequence whose item ends inside its tag, which pydicom decodes on access."""
    damaged = Dataset()
    damaged[0x00081199] = RawDataElement(
        BaseTag(0x00081199), "SQ", 2, b"\xfe\xff", 0, is_implicit_VR=True, is_little_endian=True
    )
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_commitment_report(damaged)
