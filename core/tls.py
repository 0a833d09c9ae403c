"""TLS for DICOM in both directions: a BCP 195 profile (PS3.15 annex B, RFC 9325).

Both sides authenticate (mutual TLS). The node has one certificate, as a server and as a client, and
one file of certificate authorities that it trusts.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

# The cipher suites that RFC 9325 (BCP 195) section 4.2 recommends for TLS 1.2, and the same with
# longer keys; those of TLS 1.3 are all accepted.
_TLS_1_2_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
_CERTIFICATE_NAME: Final = re.compile(r"[A-Za-z0-9 ._-]{1,253}")


@dataclass(frozen=True, slots=True)
class Identity:
    """The node's certificate, its key and the trusted authorities, as files in PEM format.

    Attributes
    ----------
    certificate : Path
        The node's certificate, followed by any intermediate certificates.
    key : Path
        Its private key, not encrypted.
    authorities : Path
        Certificates of the authorities trusted to issue the certificates of peers.
    """

    certificate: Path
    key: Path
    authorities: Path

    def server_context(self) -> ssl.SSLContext:
        """Return the context for associations that peers open.

        Raises
        ------
        ConfigurationError
            A file cannot be read or used.
        """
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def client_context(self) -> ssl.SSLContext:
        """Return the context for associations that the node opens; it checks the peer's name.

        Raises
        ------
        ConfigurationError
            A file cannot be read or used.
        """
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_ciphers(_TLS_1_2_CIPHERS)
        try:
            # Without the function OpenSSL would ask for the password at a terminal.
            context.load_cert_chain(self.certificate, self.key, password=_refuse_password)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"EPVS_TLS_CERTIFICATE {self.certificate} and EPVS_TLS_KEY {self.key} cannot be "
                f"used together: {error}.",
                "Name PEM files of a certificate and its private key without a password.",
            ) from error
        try:
            context.load_verify_locations(self.authorities)
        except OSError as error:
            raise ConfigurationError(
                f"EPVS_TLS_AUTHORITIES {self.authorities} cannot be used: {error}.",
                "Name a PEM file of the authorities that issue the certificates of your peers.",
            ) from error
        return context


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")


def is_certificate_name(text: str) -> bool:
    """Whether a setting may name `text` as a name in a certificate."""
    return _CERTIFICATE_NAME.fullmatch(text) is not None


def certificate_names(certificate: dict[str, Any] | None) -> frozenset[str]:
    """Return the names in a verified certificate: DNS names, IP addresses, common names.

    Parameters
    ----------
    certificate : dict or None
        As returned by `ssl.SSLSocket.getpeercert`.

    Returns
    -------
    frozenset of str
        In lower case.
    """
    if not certificate:
        return frozenset()
    alternatives = certificate.get("subjectAltName", ())
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    return frozenset(
        value.lower()
        for kind, value in (*alternatives, *subject)
        if kind in ("DNS", "IP Address", "commonName")
    )
