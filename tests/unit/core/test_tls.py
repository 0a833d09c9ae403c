"""Contexts as BCP 195 has them, from files that are what they should be."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from core.errors import ConfigurationError
from core.tls import Identity, certificate_names
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
