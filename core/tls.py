"""TLS for DICOM in both directions and for HL7: a BCP 195 profile (PS3.15 annex B, RFC 9325).

Both sides authenticate (mutual TLS). The node has one certificate, as a server and as a client, one
file of certificate authorities that it trusts, and possibly one of revoked certificates. Files that
are replaced take effect without a restart (`RenewedContext`).
"""

from __future__ import annotations

import logging
import re
import ssl
import threading
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

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
    revocation : Path, optional
        Revocation lists (CRL, RFC 5280) of these authorities. With it, every authority needs a
        list that has not expired: otherwise all certificates that it issued are refused.
    """

    certificate: Path
    key: Path
    authorities: Path
    revocation: Path | None = None

    def server_context(self) -> ssl.SSLContext:
        """Return the context for associations that peers open.

        Raises
        ------
        ConfigurationError
            A file cannot be read or used.
        """
        context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        # A session resumed by a ticket would skip the verification of the peer for hours.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        return context

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
        if self.revocation is not None:
            _check_revocation(context, self.revocation)
        return context

    def state_of_files(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return what changes whenever one of the files does; None for one that is missing."""
        files = (self.certificate, self.key, self.authorities, self.revocation)
        return tuple(_state(file) for file in files if file is not None)


def _check_revocation(context: ssl.SSLContext, file: Path) -> None:
    """Let `context` refuse the certificates that the lists in `file` name."""
    before = context.cert_store_stats()
    try:
        context.load_verify_locations(file)
    except OSError as error:
        reason = str(error)
    else:
        after = context.cert_store_stats()
        reason = ""
        if after["x509"] > before["x509"]:  # a certificate in it would be trusted
            reason = "it contains certificates"
        elif after["crl"] == before["crl"]:
            reason = "it contains no revocation list"
    if reason:
        raise ConfigurationError(
            f"EPVS_TLS_REVOCATION {file} cannot be used: {reason}.",
            "Name a PEM file of the revocation lists of your authorities, and nothing else.",
        )
    # Of the peer's own certificate; an authority that is revoked is to be removed from the file.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class RenewedContext:
    """A TLS context that is made anew whenever a file of its identity has changed.

    Connections keep the context that they began with. While the files cannot be used, for example
    because a certificate was replaced before its key, the last usable context stays in use.

    Parameters
    ----------
    identity : Identity
    make : callable
        `Identity.server_context` or `Identity.client_context`.

    Raises
    ------
    ConfigurationError
        A file cannot be read or used from the beginning.
    """

    def __init__(self, identity: Identity, make: Callable[[Identity], ssl.SSLContext]) -> None:
        self._identity = identity
        self._make = make
        self._lock = threading.Lock()
        self._state = identity.state_of_files()
        self._context = make(identity)

    def current(self) -> ssl.SSLContext:
        """Return the context for a new connection."""
        with self._lock:
            state = self._identity.state_of_files()
            if state != self._state:
                self._state = state  # also of files that cannot be used, so that it is logged once
                self._renew()
            return self._context

    def _renew(self) -> None:
        try:
            self._context = self._make(self._identity)
        except ConfigurationError as error:
            # Without a traceback: the message names the file and the reason.
            log.error("tls-files-unusable: the earlier ones stay in use. %s", error)  # noqa: TRY400
        else:
            log.info("tls-files-renewed certificate=%s", self._identity.certificate)


@cache
def _client(identity: Identity) -> RenewedContext:
    """One for all connections of this process with this identity."""
    return RenewedContext(identity, Identity.client_context)


def client_context_to(peer: str, identity: Identity | None) -> ssl.SSLContext:
    """Return the context for a new connection to a destination that is reached over TLS.

    Parameters
    ----------
    peer : str
        Its name, for the message.
    identity : Identity or None
        None if the node has no certificate.

    Raises
    ------
    ConfigurationError
        The identity is missing, or its files could not be used since this process started.
    """
    if identity is None:  # never fall back to sending patient data in the clear
        raise ConfigurationError(
            f"{peer} requires TLS, and this node has no certificate.",
            "Set EPVS_TLS_CERTIFICATE, EPVS_TLS_KEY and EPVS_TLS_AUTHORITIES.",
        )
    return _client(identity).current()


def failure(error: OSError) -> str:
    """Return why a TLS connection failed, without any value that the peer sent.

    OpenSSL's reasons name what is wrong with a certificate; other errors give their type.
    """
    reason = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    return str(reason or type(error).__name__)


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
