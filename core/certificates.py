"""Until when the files of a TLS identity are valid."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from core.tls import Identity

_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class Validity(NamedTuple):
    """What is valid until when."""

    name: str
    """Kind of file and the subject, or the issuer of a revocation list (RFC 4514)."""
    until: datetime
    """In UTC; the end itself still counts as valid."""


def validities(identity: Identity) -> list[Validity]:
    """Return until when the certificate, the authorities and the revocation lists are valid.

    A certificate that has expired is refused by peers. All certificates of an authority are refused
    once that authority's certificate or its revocation list has expired (RFC 5280 section 6).

    Parameters
    ----------
    identity : Identity
        Its files must be usable (`Identity.server_context`).

    Raises
    ------
    ConfigurationError
        A file is not what RFC 5280 demands, although TLS takes it.
    """
    try:
        return list(_validities(identity))
    except ValueError as error:
        raise ConfigurationError(
            f"The certificates or revocation lists are malformed: {error}.",
            "Have your authority issue them again.",
        ) from error


def _validities(identity: Identity) -> Iterator[Validity]:
    [own, *intermediates] = x509.load_pem_x509_certificates(identity.certificate.read_bytes())
    authorities = x509.load_pem_x509_certificates(identity.authorities.read_bytes())
    yield Validity(f"certificate {_name(own.subject)}", own.not_valid_after_utc)
    for certificate in (*intermediates, *authorities):
        yield Validity(f"authority {_name(certificate.subject)}", certificate.not_valid_after_utc)
    if identity.revocation is not None:
        for encoded in _LIST.findall(identity.revocation.read_bytes()):
            crl = x509.load_pem_x509_crl(encoded)
            if crl.next_update_utc is not None:
                yield Validity(f"revocation list of {_name(crl.issuer)}", crl.next_update_utc)


def _name(name: x509.Name) -> str:
    return name.rfc4514_string()
