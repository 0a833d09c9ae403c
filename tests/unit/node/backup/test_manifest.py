"""The manifest and the hashes of a backup, as whoever can write to its folder may change them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from core.errors import EpvsError
from node.backup.manifest import (
    FORMAT,
    Manifest,
    copy_durably,
    read_hashes,
    verify,
    write_hashes,
)

if TYPE_CHECKING:
    from pathlib import Path

HASH = "0" * 64


def manifest(hashes_sha256: str = HASH) -> Manifest:
    return Manifest(
        format=FORMAT,
        made_at="2026-03-01T08:00:00+00:00",
        node_version="0.2.0",
        schema="0011",
        database="database.sqlite",
        server="SQLite 3.40.1",
        program="online backup",
        audit_head=f"1:{HASH}",
        n_studies=1,
        n_files=1,
        n_bytes=1,
        missing=[],
        hashes_sha256=hashes_sha256,
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    hashes = {"database.sqlite": HASH, f"spool/00/{HASH}.dcm": HASH, "audit-checkpoints": HASH}
    made = manifest(write_hashes(tmp_path, hashes))
    made.write(tmp_path)
    assert Manifest.read(tmp_path) == made
    assert read_hashes(tmp_path, made) == hashes


@pytest.mark.parametrize("name", ["../x.dcm", "/etc/passwd", "spool/../../x", "a b", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    made = manifest(write_hashes(tmp_path, {name: HASH}))
    with pytest.raises(EpvsError, match=r"files\.sha256"):
        read_hashes(tmp_path, made)


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"format": FORMAT})])
def test_a_manifest_of_another_form_is_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(EpvsError, match=r"damaged: manifest\.json"):
        Manifest.read(tmp_path)


def test_a_manifest_of_a_later_format_names_the_version_that_reads_it(tmp_path: Path) -> None:
    later = asdict(manifest()) | {"format": FORMAT + 1, "node_version": "9.0.0", "new": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(later))
    with pytest.raises(EpvsError, match=r"with epvs-node 9\.0\.0"):
        Manifest.read(tmp_path)


def test_every_file_is_verified(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    verify(tmp_path, {"file": empty})
    with pytest.raises(EpvsError, match="damaged: file"):
        verify(tmp_path, {"file": HASH})
    with pytest.raises(EpvsError, match="damaged: other"):
        verify(tmp_path, {"file": empty, "other": empty})


def test_a_copy_replaces_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(b"1")
    copy_durably(source, target)
    assert target.read_bytes() == b"1"
    with pytest.raises(FileExistsError):
        copy_durably(source, target)
