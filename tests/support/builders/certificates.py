"""Certificate authorities for tests, and the certificates that they issue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core.tls import Identity

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """Issues certificates into `folder`; two authorities do not trust each other.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self.certificate = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.certificate)

    def issue(self, *names: str) -> Identity:
        """Make a certificate with `names` (host names or addresses) that trusts its authority."""
        # RSA, because not every peer offers cipher suites for the other kinds.
        made = self._authority.issue_cert(
            *names, common_name=names[0], key_type=trustme.KeyType.RSA
        )
        certificate, key = (self._folder / f"{names[0]}-{kind}.pem" for kind in ("cert", "key"))
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        return Identity(certificate, key, self.certificate)

    def revocation_list(
        self, *revoked: Identity, expires_in: timedelta = timedelta(days=7), name: str = "crl"
    ) -> Path:
        """Write the list of these revoked certificates."""
        now = datetime.now(UTC)
        issuer = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(now - timedelta(days=30))
            .next_update(now + expires_in)
        )
        for identity in revoked:
            certificate = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(now - timedelta(days=1))
                .build()
            )
        key = serialization.load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        path = self._folder / f"{name}.pem"
        made = builder.sign(key, hashes.SHA256())
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return path


def tls_settings(identity: Identity) -> dict[str, str]:
    """Settings that give a node this identity."""
    return {
        "tls_certificate": str(identity.certificate),
        "tls_key": str(identity.key),
        "tls_authorities": str(identity.authorities),
    }
