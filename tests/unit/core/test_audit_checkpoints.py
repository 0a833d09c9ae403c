from __future__ import annotations

import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core import audit_checkpoints
from core.audit_checkpoints import Checkpoint
from core.errors import ConfigurationError, EpvsError
from tests.support.builders.records import after

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    audit_checkpoints.generate_key(path)
    return path


@pytest.fixture
def signed(key_file: Path) -> Checkpoint:
    key = audit_checkpoints.load_private_key(key_file)
    return audit_checkpoints.sign(key, seq=7, event_hash="ab" * 32, at=after(0), node="EPVSNODE")


def problem(checkpoint: Checkpoint, *key_files: Path) -> str:
    keys = [audit_checkpoints.load_public_key(path) for path in key_files]
    return audit_checkpoints.find_problem(checkpoint, keys)


def test_a_checkpoint_survives_its_line(signed: Checkpoint, key_file: Path) -> None:
    public = audit_checkpoints.public_key_path(key_file)
    line = signed.as_json()
    assert "\n" not in line
    assert line.isascii()
    assert Checkpoint.parse(line) == signed
    in_syslog = f"Nov 29 01:20:00 host epvs-node[7]: audit-checkpoint {line}\n"
    assert Checkpoint.parse(in_syslog) == signed
    assert signed.at == "2026-03-01T08:00:00Z"
    assert problem(signed, public) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 8},
        {"hash": "cd" * 32},
        {"at": "2026-03-01T08:00:01Z"},
        {"node": "OTHER"},
        {"signature": ""},
        {"signature": "ä"},
    ],
)
def test_every_field_is_signed(
    signed: Checkpoint, key_file: Path, change: dict[str, object]
) -> None:
    public = audit_checkpoints.public_key_path(key_file)
    changed = replace(signed, **change)  # type: ignore[arg-type]
    assert problem(changed, public) == "has an invalid signature"


def test_only_the_given_keys_count(signed: Checkpoint, key_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other_id = audit_checkpoints.generate_key(other)
    other_public = audit_checkpoints.public_key_path(other)
    assert "unknown key" in problem(signed, other_public)
    assert problem(signed, other_public, audit_checkpoints.public_key_path(key_file)) == ""
    assert problem(replace(signed, key=other_id), other_public) == "has an invalid signature"


def test_the_key_is_for_its_owner_alone(key_file: Path) -> None:
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="exists already"):
        audit_checkpoints.generate_key(key_file)
    key_file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        audit_checkpoints.load_private_key(key_file)


def test_other_files_are_not_keys(key_file: Path, tmp_path: Path) -> None:
    public = audit_checkpoints.public_key_path(key_file)
    curve = ec.generate_private_key(ec.SECP256R1())
    encodings = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    encrypted = serialization.BestAvailableEncryption(b"secret")
    contents = [
        b"",
        b"not PEM",
        public.read_bytes(),
        curve.private_bytes(*encodings, serialization.NoEncryption()),
        audit_checkpoints.load_private_key(key_file).private_bytes(*encodings, encrypted),
    ]
    path = tmp_path / "other.pem"
    for content in contents:
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigurationError, match="audit keygen"):
            audit_checkpoints.load_private_key(path)
    with pytest.raises(ConfigurationError, match="Ed25519 public key"):
        audit_checkpoints.load_public_key(key_file)
    for load in (audit_checkpoints.load_private_key, audit_checkpoints.load_public_key):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load(tmp_path / "missing")


def test_a_key_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing/key\.pem cannot be written"):
        audit_checkpoints.generate_key(tmp_path / "missing" / "key.pem")


def test_a_file_of_checkpoints(signed: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints"
    with pytest.raises(EpvsError, match="cannot be read"):
        audit_checkpoints.read_checkpoints(path)
    path.write_text(f"{signed.as_json()}\n\n<13>host: audit-checkpoint {signed.as_json()}\n")
    assert audit_checkpoints.read_checkpoints(path) == [signed, signed]
    with path.open("ab") as file:
        file.write(b'\xff{"seq":')
    with pytest.raises(EpvsError, match=r"Line 4 of .* is not a checkpoint"):
        audit_checkpoints.read_checkpoints(path)
