"""Certificate authorities for tests, and the certificates that they issue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trustme

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
