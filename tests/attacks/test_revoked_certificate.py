"""A stolen key stops working as soon as its certificate is on the revocation list.

Lists and certificates are replaced while the node runs: new connections follow the new files,
established associations go on.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from core.errors import Unavailable
from core.tls import certificate_names
from tests.support.builders.certificates import Authority
from tests.support.clients import upper_layer as ul
from tests.support.servers.mllp import scripted_receiver
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import ReceiverProcess, run_receiver, wait_until
from tests.support.servers.storescp import run_storescp
from worker.delivery.dicom_scu import DicomScu
from worker.delivery.hl7.mllp import exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.tls import Identity

TIMEOUT_S = 3.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def node(authority: Authority) -> Identity:
    """The node's identity, with a list on which nothing is revoked yet."""
    return replace(authority.issue("localhost"), revocation=authority.revocation_list())


@pytest.fixture
def pacs(authority: Authority) -> Identity:
    return authority.issue("pacs.example")


@pytest.fixture
def receiver(node: Identity, tmp_path: Path) -> Iterator[ReceiverProcess]:
    with run_receiver(
        tmp_path / "data",
        tls_port=str(free_port()),
        tls_certificate=str(node.certificate),
        tls_key=str(node.key),
        tls_authorities=str(node.authorities),
        tls_revocation=str(node.revocation),
    ) as process:
        yield process


@contextmanager
def connection(receiver: ReceiverProcess, identity: Identity) -> Iterator[ul.Peer]:
    """A caller's connection over TLS."""
    port = int(receiver.environment["EPVS_TLS_PORT"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        identity.client_context().wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        yield ul.Peer(secured)


def is_served(receiver: ReceiverProcess, identity: Identity) -> bool:
    """Whether a caller with this identity gets an association."""
    try:
        with connection(receiver, identity) as peer:
            peer.send(ul.associate_rq(ul.CONTEXTS))
            return peer.receive() is not None
    except OSError:
        return False


def refusals(receiver: ReceiverProcess) -> set[tuple[str, str]]:
    """Reasons and details of refused connections."""
    rows = receiver.wait_for_audit("connection-refused")
    return {(row.detail["reason"], row.detail["detail"]) for row in rows}


def test_a_caller_is_refused_as_soon_as_its_certificate_is_on_the_list(
    receiver: ReceiverProcess, authority: Authority, pacs: Identity
) -> None:
    other = authority.issue("other.example")
    with connection(receiver, pacs) as established:
        established.associate()
        authority.revocation_list(pacs)  # replaces the file
        assert not is_served(receiver, pacs)
        assert is_served(receiver, other)
        established.send(ul.echo())
        assert established.status() == 0x0000
    assert refusals(receiver) == {("tls-handshake-failed", "certificate revoked")}
    authority.revocation_list()
    assert is_served(receiver, pacs)


def test_an_expired_list_admits_nobody(
    receiver: ReceiverProcess, authority: Authority, pacs: Identity
) -> None:
    authority.revocation_list(expires_in=timedelta(days=-1))
    assert not is_served(receiver, pacs)
    assert refusals(receiver) == {("tls-handshake-failed", "CRL has expired")}


def test_nothing_is_sent_to_a_destination_whose_certificate_is_revoked(
    authority: Authority, node: Identity, tmp_path: Path
) -> None:
    stolen = authority.issue("stolen.example", "localhost")
    with run_storescp(tmp_path, stolen) as archive, scripted_receiver(stolen) as ris:
        scu = DicomScu(archive, calling_ae="EPVSNODE", timeout_s=TIMEOUT_S, identity=node)
        scu.echo()
        exchange(ris.destination, node, message(), timeout_s=TIMEOUT_S)
        authority.revocation_list(stolen)
        scu = DicomScu(archive, calling_ae="EPVSNODE", timeout_s=TIMEOUT_S, identity=node)
        with pytest.raises(Unavailable):
            scu.echo()
        with pytest.raises(Unavailable, match="certificate revoked"):
            exchange(ris.destination, node, message(), timeout_s=TIMEOUT_S)
    assert len(ris.messages) == 1


def message() -> bytes:
    return b"MSH|^~\\&|EPVSNODE||||20260302||ORU^R01|ID1|P|2.5.1\r"


def served_names(receiver: ReceiverProcess, identity: Identity) -> frozenset[str]:
    """Names in the certificate that the receiver presents."""
    with connection(receiver, identity) as peer:
        assert isinstance(peer.connection, ssl.SSLSocket)
        return certificate_names(peer.connection.getpeercert())


def test_the_receiver_presents_a_renewed_certificate_without_a_restart(
    receiver: ReceiverProcess, authority: Authority, node: Identity, pacs: Identity
) -> None:
    renewed = authority.issue("renewed.example", "localhost")
    with connection(receiver, pacs) as established:
        established.associate()
        assert "renewed.example" not in served_names(receiver, pacs)
        renewed.certificate.replace(node.certificate)  # not yet its key
        assert "renewed.example" not in served_names(receiver, pacs)
        wait_until(lambda: "tls-files-unusable" in receiver.log.read_text())
        renewed.key.replace(node.key)
        assert "renewed.example" in served_names(receiver, pacs)
        established.send(ul.echo())
        assert established.status() == 0x0000
    assert receiver.log.read_text().count("tls-files-unusable") == 1
