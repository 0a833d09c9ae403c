"""DICOM over TLS: certificates identify callers, and slow clients do not block others."""

from __future__ import annotations

import socket
import ssl
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.builders.certificates import Authority
from tests.support.builders.mr_series import write_series
from tests.support.clients import upper_layer as ul
from tests.support.servers.dcmtk import dcmtk_program
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import run_receiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.tls import Identity
    from tests.support.servers.receiver import ReceiverProcess


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pacs(authority: Authority) -> Identity:
    return authority.issue("pacs.example")


@pytest.fixture(scope="module")
def tls_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def receiver(
    authority: Authority, tls_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReceiverProcess]:
    node = authority.issue("node.example")
    with run_receiver(
        tmp_path_factory.mktemp("receiver") / "data",
        tls_port=str(tls_port),
        tls_certificate=str(node.certificate),
        tls_key=str(node.key),
        tls_authorities=str(node.authorities),
        callers="PACS@127.0.0.1?certificate=pacs.example,OPEN@127.0.0.1",
        network_timeout_s="5",
    ) as process:
        yield process


def dcmtk_tls(
    name: str, port: int, identity: Identity, *arguments: str | Path, calling_ae: str = "PACS"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(dcmtk_program(name), "-aet", calling_ae, "-aec", "EPVSNODE"),
            *("+tls", str(identity.key), str(identity.certificate)),
            *("+cf", str(identity.authorities), "127.0.0.1", str(port)),
            *(str(argument) for argument in arguments),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_study_is_stored(
    receiver: ReceiverProcess, tls_port: int, pacs: Identity, tmp_path: Path
) -> None:
    paths = write_series(tmp_path, 12)
    answer = dcmtk_tls("storescu", tls_port, pacs, *paths)
    assert answer.returncode == 0, answer.stderr
    assert len(receiver.instances()) == len(paths)


def test_a_caller_listed_with_a_certificate_must_present_it(
    receiver: ReceiverProcess, tls_port: int, authority: Authority, pacs: Identity
) -> None:
    assert dcmtk_tls("echoscu", tls_port, pacs).returncode == 0
    other = authority.issue("other.example")
    assert "Calling AE Title Not Recognized" in dcmtk_tls("echoscu", tls_port, other).stderr
    # An entry without a certificate admits any certificate of the authority, and connections
    # without TLS.
    assert dcmtk_tls("echoscu", tls_port, other, calling_ae="OPEN").returncode == 0
    with ul.peer(receiver.port) as peer:
        peer.send(ul.associate_rq({1: (ul.VERIFICATION, [ul.IMPLICIT])}, calling_ae="PACS"))
        answer = peer.receive()
        assert answer is not None
        assert answer.kind == ul.ASSOCIATE_RJ
    rows = receiver.wait_for_refusals("association-refused", 2)
    assert {row["reason"] for row in rows} == {"caller-without-its-certificate"}


def test_unknown_authorities_and_old_protocols_fail_in_the_handshake(
    receiver: ReceiverProcess, tls_port: int, pacs: Identity, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path).issue("pacs.example")
    assert dcmtk_tls("echoscu", tls_port, stranger).returncode != 0
    assert handshake(tls_port, None) is None
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert handshake(tls_port, old) is None
    with ul.peer(tls_port) as peer:  # no TLS at all
        peer.send(ul.associate_rq({1: (ul.VERIFICATION, [ul.IMPLICIT])}))
        with suppress(ConnectionError):
            assert peer.connection.recv(1) != bytes([ul.ASSOCIATE_AC])
    rows = receiver.wait_for_audit("connection-refused")
    assert {row.detail["reason"] for row in rows} == {"tls-handshake-failed"}
    assert dcmtk_tls("echoscu", tls_port, pacs).returncode == 0


def handshake(port: int, context: ssl.SSLContext | None) -> str | None:
    """Return the TLS version negotiated without a client certificate; None if it fails."""
    context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
            context.wrap_socket(connection) as secured,
        ):
            secured.sendall(ul.associate_rq({1: (ul.VERIFICATION, [ul.IMPLICIT])}))
            # In TLS 1.3 the server's refusal comes after the client's handshake has ended.
            return secured.version() if secured.recv(1) else None
    except OSError:
        return None


@pytest.mark.usefixtures("receiver")
def test_silent_and_slow_clients_do_not_delay_others(tls_port: int, pacs: Identity) -> None:
    hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_bio(*hello, server_hostname="node.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    begun = hello[1].read()
    held = [socket.create_connection(("127.0.0.1", tls_port)) for _ in range(10)]
    try:
        for connection in held[5:]:
            connection.sendall(begun[:50])
        assert dcmtk_tls("echoscu", tls_port, pacs).returncode == 0
        for connection in held:  # the echo was answered before any of these was closed
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)
    finally:
        for connection in held:
            connection.close()
