"""Signed checkpoints of the audit trail, which whoever owns the database cannot forge.

A checkpoint states number and hash of the newest event at a time. Each hash covers all events
before it, so one checkpoint proves the whole trail up to its event. Signatures are Ed25519 (RFC
8032); the private key is a file that neither the database nor its administrator has.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from core.errors import ConfigurationError, EpvsError
from core.uids import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

_PURPOSE: Final = b"epvs-node audit checkpoint\n"
"""Signed with every checkpoint, so that a signature for another purpose is never one for it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Newest event of an audit trail at a time, signed.

    Parameters
    ----------
    seq : int
        Number of the event.
    hash : str
        Its hash: SHA-256, hexadecimal.
    at : str
        When it was signed: ISO 8601, UTC.
    node : str
        AE title of the node.
    key : str
        `key_id` of the signing key.
    signature : str
        Ed25519, Base64; empty until signed.
    """

    seq: int
    hash: str
    at: str
    node: str
    key: str
    signature: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the JSON object in a line, which may have a prefix, as in a syslog file.

        Raises
        ------
        ValueError
            The line has no checkpoint.
        """
        values = json.loads(text[text.index("{") :])
        types = {field.name: int if field.name == "seq" else str for field in fields(cls)}
        if not isinstance(values, dict) or {n: type(v) for n, v in values.items()} != types:
            raise ValueError("not a checkpoint")
        return cls(**values)

    def as_json(self) -> str:
        """Return the checkpoint as one line of JSON."""
        return canonical_json(asdict(self))

    def signed_content(self) -> bytes:
        """Return the bytes that the signature covers."""
        return _PURPOSE + replace(self, signature="").as_json().encode("ascii")


def sign(
    key: Ed25519PrivateKey, *, seq: int, event_hash: str, at: datetime, node: str
) -> Checkpoint:
    """Sign number and hash of an event."""
    moment = at.isoformat(timespec="seconds").replace("+00:00", "Z")
    unsigned = Checkpoint(seq, event_hash, moment, node, key_id(key.public_key()))
    signature = base64.b64encode(key.sign(unsigned.signed_content())).decode("ascii")
    return replace(unsigned, signature=signature)


def find_problem(checkpoint: Checkpoint, keys: Iterable[Ed25519PublicKey]) -> str:
    """Say what is wrong with the signature of a checkpoint; empty if it is one of `keys`."""
    known = {key_id(key): key for key in keys}
    if checkpoint.key not in known:
        return f"is signed with the unknown key {checkpoint.key}"
    try:
        signature = base64.b64decode(checkpoint.signature, validate=True)
        known[checkpoint.key].verify(signature, checkpoint.signed_content())
    except (ValueError, InvalidSignature):
        return "has an invalid signature"
    return ""


def read_checkpoints(path: Path) -> list[Checkpoint]:
    """Read a file of checkpoints, one for each line; empty lines are skipped.

    Raises
    ------
    EpvsError
        The file cannot be read, has no checkpoint or has a line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise EpvsError(f"Checkpoints cannot be read from {path}: {error.strerror}.") from None
    checkpoints = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                checkpoints.append(Checkpoint.parse(line))
        except (ValueError, RecursionError):
            raise EpvsError(
                f"Line {number} of {path} is not a checkpoint.",
                "A line that a crash cut off may be deleted. Otherwise somebody changed it.",
            ) from None
    if not checkpoints:
        raise EpvsError(f"There is no checkpoint in {path}.", "Is it the right file?")
    return checkpoints


def key_id(key: Ed25519PublicKey) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a public key (raw, 32 bytes)."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def public_key_path(private: Path) -> Path:
    """Return where `generate_key` writes the public key."""
    return private.with_name(f"{private.name}.pub")


def generate_key(path: Path) -> str:
    """Write a new private key, readable for its owner only, and its public key beside it (PEM).

    Returns
    -------
    str
        `key_id` of the public key.

    Raises
    ------
    ConfigurationError
        There is such a file already, or it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        for file, content, mode in (
            (path, private, 0o600),
            (public_key_path(path), public, 0o644),
        ):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
    except FileExistsError:
        raise ConfigurationError(
            f"{file} exists already.",
            "Move it away first; old checkpoints still need its public key.",
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}.") from None
    return key_id(key.public_key())


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read the key that signs checkpoints.

    Raises
    ------
    ConfigurationError
        The file cannot be read, is readable for others, or holds no such key.
    """
    content = _read(path)
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path} can be read by other users.", f"Run chmod 600 {path}.")
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            f"{path} is not an Ed25519 private key without a password (PEM).",
            "Make one with epvs-node audit keygen.",
        )
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a key that verifies checkpoints.

    Raises
    ------
    ConfigurationError
        The file cannot be read, or holds no such key.
    """
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(
            f"{path} is not an Ed25519 public key (PEM).",
            "epvs-node audit keygen writes it beside the private key, with .pub at the end.",
        )
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"The key {path} cannot be read: {error.strerror}.",
            "Correct the path, or let the node's user read the file.",
        ) from None
