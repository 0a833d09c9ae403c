"""Contexts as BCP 195 has them, from files that are what they should be, and that may change."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization

from core.errors import ConfigurationError
from core.tls import Identity, RenewedContext, certificate_names, client_context_to, failure
from tests.support.builders.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Authority(tmp_path_factory.mktemp("authority")).issue("node.example")


@pytest.mark.parametrize("make", [Identity.server_context, Identity.client_context])
def test_both_sides_prove_themselves_and_old_protocols_are_out(
    node: Identity, make: Callable[[Identity], ssl.SSLContext]
) -> None:
    context = make(node)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    names = {cipher["name"] for cipher in context.get_ciphers()}
    assert names
    for name in names:  # forward secrecy and authenticated encryption, nothing else
        assert name.startswith(("TLS_", "ECDHE-", "DHE-"))
        assert "GCM" in name or "CHACHA20" in name or "CCM" in name


def test_the_client_checks_the_name(node: Identity) -> None:
    assert node.client_context().check_hostname


@pytest.mark.parametrize(
    ("field", "setting"),
    [
        ("certificate", "EPVS_TLS_CERTIFICATE"),
        ("key", "EPVS_TLS_KEY"),
        ("authorities", "EPVS_TLS_AUTHORITIES"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "no PEM"])
def test_a_file_that_cannot_be_used_is_named(
    node: Identity, tmp_path: Path, field: str, setting: str, damage: str
) -> None:
    file = tmp_path / "file.pem"
    if damage != "missing":
        file.write_text("no certificate and no key")
    with pytest.raises(ConfigurationError, match=setting) as refusal:
        replace(node, **{field: file}).server_context()
    assert str(file) in str(refusal.value)


def test_a_key_with_a_password_is_refused_and_not_asked_for(node: Identity, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(node.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigurationError, match="encrypted"):
        replace(node, key=locked).server_context()


def test_names_of_a_certificate() -> None:
    certificate = {
        "subject": ((("organizationName", "Hospital"),), (("commonName", "PACS 1"),)),
        "subjectAltName": (("DNS", "Pacs.Example"), ("IP Address", "192.0.2.7"), ("URI", "x")),
    }
    assert certificate_names(certificate) == {"pacs 1", "pacs.example", "192.0.2.7"}
    assert certificate_names(None) == frozenset()


def names_in(context: ssl.SSLContext, identity: Identity) -> set[str]:
    """Names that a server with this context presents to a client of `identity`."""
    return set(certificate_names(shake_hands(context, identity.client_context())))


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """Shake hands in memory; return the server's certificate."""
    certificate = connect(server, client)[0].getpeercert()
    assert certificate is not None
    return certificate


def connect(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Shake hands in memory; return both ends, the client's first."""
    client.check_hostname = False
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends


@pytest.fixture
def replaceable(tmp_path: Path) -> Identity:
    """An identity whose files a test replaces."""
    return Authority(tmp_path / "ca").issue("node.example")


def replace_files(identity: Identity, by: Identity, *fields: str) -> None:
    """Replace files as tools for certificates do: by renaming."""
    for field in fields:
        target = getattr(identity, field)
        new = target.with_suffix(".new")
        new.write_bytes(getattr(by, field).read_bytes())
        new.replace(target)


def test_a_renewed_certificate_is_presented_to_new_connections(
    replaceable: Identity, tmp_path: Path
) -> None:
    context = RenewedContext(replaceable, Identity.server_context)
    first = context.current()
    assert context.current() is first
    renewed = Authority(tmp_path / "other").issue("renewed.example")
    replace_files(replaceable, renewed, "certificate", "key", "authorities")
    assert "renewed.example" in names_in(context.current(), renewed)
    assert context.current() is not first


def test_files_that_cannot_be_used_leave_the_last_context_and_are_logged_once(
    replaceable: Identity, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = RenewedContext(replaceable, Identity.server_context)
    first = context.current()
    renewed = Authority(tmp_path / "other").issue("renewed.example")
    replace_files(replaceable, renewed, "certificate")
    assert context.current() is first
    assert context.current() is first
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert "tls-files-unusable" in record.message
    assert str(replaceable.certificate) in record.message
    replaceable.authorities.unlink()
    assert context.current() is first
    replace_files(replaceable, renewed, "key", "authorities")
    assert "renewed.example" in names_in(context.current(), renewed)


def test_destinations_share_a_context_that_is_renewed(replaceable: Identity) -> None:
    first = client_context_to("PACS@host:104", replaceable)
    assert client_context_to("PACS@host:104", replace(replaceable)) is first
    os.utime(replaceable.authorities, ns=(1, 1))
    assert client_context_to("PACS@host:104", replaceable) is not first
    with pytest.raises(ConfigurationError, match="PACS@host:104 requires TLS"):
        client_context_to("PACS@host:104", None)


def test_a_revoked_certificate_is_refused_on_both_sides(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good, bad = authority.issue("good.example"), authority.issue("bad.example")
    checking = replace(good, revocation=authority.revocation_list(bad))
    shake_hands(checking.server_context(), good.client_context())
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        shake_hands(checking.server_context(), bad.client_context())
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        shake_hands(bad.server_context(), checking.client_context())


def test_an_expired_or_missing_list_refuses_everything(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    node = authority.issue("node.example")
    expired = replace(node, revocation=authority.revocation_list(expires_in=timedelta(days=-1)))
    with pytest.raises(ssl.SSLError, match="CRL has expired"):
        shake_hands(expired.server_context(), node.client_context())
    without = replace(node, revocation=other.revocation_list())
    with pytest.raises(ssl.SSLError, match="unable to get certificate CRL"):
        shake_hands(without.server_context(), node.client_context())


def test_lists_of_several_authorities_are_in_one_file(tmp_path: Path) -> None:
    one, two = Authority(tmp_path / "one"), Authority(tmp_path / "two")
    node, pacs = one.issue("node.example"), two.issue("pacs.example")
    revoked = two.issue("revoked.example")
    both, lists = tmp_path / "both.pem", tmp_path / "lists.pem"
    both.write_bytes(one.certificate.read_bytes() + two.certificate.read_bytes())
    made = (one.revocation_list(), two.revocation_list(revoked))
    lists.write_bytes(b"".join(path.read_bytes() for path in made))
    server = replace(node, authorities=both, revocation=lists)
    shake_hands(server.server_context(), replace(pacs, authorities=both).client_context())
    with pytest.raises(ssl.SSLError, match="revoked"):
        shake_hands(server.server_context(), replace(revoked, authorities=both).client_context())


@pytest.mark.parametrize("content", ["certificate", "both", "nothing", "missing"])
def test_a_file_of_lists_contains_lists_only(tmp_path: Path, content: str) -> None:
    authority = Authority(tmp_path)
    stranger = Authority(tmp_path / "stranger").certificate.read_bytes()
    file, crl = tmp_path / "file.pem", authority.revocation_list().read_bytes()
    if content != "missing":
        file.write_bytes({"certificate": stranger, "both": crl + stranger}.get(content, b"none"))
    node = replace(authority.issue("node.example"), revocation=file)
    with pytest.raises(ConfigurationError, match=f"EPVS_TLS_REVOCATION {file}"):
        node.server_context()


def test_the_reason_of_a_failure_is_never_empty() -> None:
    assert failure(ConnectionResetError()) == "ConnectionResetError"
    assert failure(ssl.SSLError()) == "SSLError"
    wrong = ssl.SSLCertVerificationError()
    wrong.verify_message = "certificate revoked"
    assert failure(wrong) == "certificate revoked"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_peers_get_no_ticket_to_come_back_without_verification(
    node: Identity, version: ssl.TLSVersion
) -> None:
    client = node.client_context()
    client.maximum_version = client.minimum_version = version
    here, there = connect(node.server_context(), client)
    there.write(b"data")
    assert here.read(4) == b"data"
    assert here.session is None or not here.session.has_ticket
