"""Attack: someone else reports that an archive has committed to keep a report."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from sqlalchemy import select

from core import commitment
from core.destinations import parse_dicom_destination
from db.delivery import claims, commitments
from db.models import AuditEvent, CommitmentRequest, Delivery
from db.session import create_engine, unit_of_work
from tests.support.builders.certificates import Authority
from tests.support.builders.records import after, grade_study, queue_study
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import AE_TITLE, ReceiverProcess, run_receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.tls import Identity

TRANSACTION = "2.25.77"
PICTURE, REPORT = "2.25.1.2", "2.25.1.3"
SUCCESS, NOT_AUTHORISED = 0x0000, 0x0124
ARCHIVE = "ARCHIVE@127.0.0.1:4243?commit=1"


@contextmanager
def awaiting(folder: Path, destination: str, **settings: Any) -> Iterator[ReceiverProcess]:
    """Run a receiver that waits for the report of `destination`, and admits every caller."""
    with run_receiver(
        folder, callers="*@127.0.0.0/8", destinations=destination, **settings
    ) as receiver:
        engine = create_engine(receiver.database_url)
        with unit_of_work(engine) as session:
            grade_study(session, queue_study(session), parse_dicom_destination(destination))
            delivery_id = session.scalars(select(Delivery.id)).one()
            claim = claims.claim_delivery(session, delivery_id, now=after(50), lease_s=60)
            assert claim is not None
            assert commitments.open_request(
                session, claim, TRANSACTION, now=after(50), statuses={PICTURE: 0, REPORT: 0}
            )
        engine.dispose()
        yield receiver


def report(
    port: int, ae_title: str, address: str = "127.0.0.1", identity: Identity | None = None
) -> int:
    """Report that everything is committed; return the status of the response."""
    information = Dataset()
    information.TransactionUID = TRANSACTION
    information.ReferencedSOPSequence = [reference(uid) for uid in (PICTURE, REPORT)]
    ae = AE(ae_title)
    ae.add_requested_context(commitment.SOP_CLASS_UID)
    assoc = ae.associate(
        "127.0.0.1",
        port,
        ae_title=AE_TITLE,
        ext_neg=[build_role(commitment.SOP_CLASS_UID, scp_role=True)],
        bind_address=(address, 0),
        tls_args=(identity.client_context(), "node.example") if identity else None,
    )
    assert assoc.is_established
    answer, _ = assoc.send_n_event_report(
        information, 1, commitment.SOP_CLASS_UID, commitment.SOP_INSTANCE_UID
    )
    assoc.release()
    return int(answer.Status)


def reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.3", uid
    return item


def stored(receiver: ReceiverProcess, statement: Any) -> Any:
    engine = create_engine(receiver.database_url)
    try:
        with unit_of_work(engine, read_only=True) as session:
            return session.scalars(statement).one()
    finally:
        engine.dispose()


def proof(receiver: ReceiverProcess) -> str | None:
    delivery = stored(receiver, select(Delivery))
    return delivery.proof


@pytest.mark.parametrize(
    ("ae_title", "address"),
    [("STRANGER", "127.0.0.2"), ("STRANGER", "127.0.0.1"), ("ARCHIVE", "127.0.0.2")],
)
def test_a_report_of_another_caller_commits_nothing(
    tmp_path: Path, ae_title: str, address: str
) -> None:
    with awaiting(tmp_path, ARCHIVE) as receiver:
        assert report(receiver.port, ae_title, address) == NOT_AUTHORISED
        assert proof(receiver) is None
        (row,) = receiver.wait_for_refusals("report-refused")
        assert row["reason"] == "reporter-not-authorised"
        assert (row["calling_ae"], row["peer_address"]) == (ae_title, address)
        # The archive itself still can, and who it was is kept.
        assert report(receiver.port, "ARCHIVE") == SUCCESS
        assert proof(receiver) == "commitment"
        request = stored(receiver, select(CommitmentRequest))
        assert (request.reporter_ae, request.reporter_address) == ("ARCHIVE", "127.0.0.1")
        assert request.reporter_certificate == ""
        event = stored(receiver, select(AuditEvent).where(AuditEvent.event == "commitment-report"))
        assert event.detail == {
            "destination": "ARCHIVE@127.0.0.1:4243",
            "transaction_uid": TRANSACTION,
            "committed": 2,
            "failed": 0,
            "reporter_ae": "ARCHIVE",
            "reporter_address": "127.0.0.1",
            "reporter_certificate": "",
        }


def test_a_destination_may_be_given_by_name(tmp_path: Path) -> None:
    assert "127.0.0.1" in {str(entry[4][0]) for entry in socket.getaddrinfo("localhost", None)}
    with awaiting(tmp_path, "ARCHIVE@localhost:4243?commit=1") as receiver:
        assert report(receiver.port, "ARCHIVE", "127.0.0.2") == NOT_AUTHORISED
        assert report(receiver.port, "ARCHIVE") == SUCCESS


def test_an_archive_whose_name_cannot_be_resolved_is_to_report_again(tmp_path: Path) -> None:
    with awaiting(tmp_path, "ARCHIVE@archive.invalid:4243?commit=1") as receiver:
        assert report(receiver.port, "ARCHIVE") == 0x0110
        assert proof(receiver) is None


def test_another_node_of_a_cluster_reports_where_the_destination_says_so(tmp_path: Path) -> None:
    options = "&reporter=NODE2@127.0.0.2&reporter=*@127.0.4.0/24"
    with awaiting(tmp_path, ARCHIVE + options) as receiver:
        assert report(receiver.port, "NODE3", "127.0.0.2") == NOT_AUTHORISED
        assert report(receiver.port, "NODE2", "127.0.0.3") == NOT_AUTHORISED
        assert report(receiver.port, "NODE2", "127.0.0.2") == SUCCESS
        assert report(receiver.port, "NODE4", "127.0.4.9") == SUCCESS  # a repeated report


def test_an_archive_that_is_reached_over_tls_reports_with_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    node, archive = authority.issue("node.example"), authority.issue("archive.example")
    other = authority.issue("other.example")
    tls_port = free_port()
    with awaiting(
        tmp_path / "node",
        "ARCHIVE@127.0.0.1:4243?commit=1&tls=1&tlsname=Archive.example",
        tls_port=str(tls_port),
        tls_certificate=str(node.certificate),
        tls_key=str(node.key),
        tls_authorities=str(node.authorities),
    ) as receiver:
        assert report(receiver.port, "ARCHIVE") == NOT_AUTHORISED  # in the clear
        assert report(tls_port, "ARCHIVE", identity=other) == NOT_AUTHORISED
        assert proof(receiver) is None
        assert report(tls_port, "ANY", "127.0.0.2", identity=archive) == SUCCESS
        assert proof(receiver) == "commitment"
        request = stored(receiver, select(CommitmentRequest))
        assert request.reporter_certificate == "archive.example"


def test_a_destination_that_is_no_longer_configured_commits_nothing(tmp_path: Path) -> None:
    with awaiting(tmp_path / "first", ARCHIVE) as first:
        pass
    with run_receiver(
        tmp_path / "second", database_url=first.database_url, callers="*@127.0.0.0/8"
    ) as receiver:
        assert report(receiver.port, "ARCHIVE") == NOT_AUTHORISED
        assert proof(receiver) is None
