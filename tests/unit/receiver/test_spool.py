"""Spooled files are named by their hash, equal for equal instances, and complete or absent."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from receiver.spool import Spool, StoredFile

if TYPE_CHECKING:
    from pathlib import Path

DATA_SET = b"\x08\0\x60\0CS\x02\0MR"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool", reserve_bytes=0)
    spool.prepare()
    return spool


def store(spool: Spool, data_set: bytes, syntax: str = ExplicitVRLittleEndian) -> StoredFile:
    with spool.create(MRImageStorage, "1.2.3", syntax) as file:
        file.write(data_set[:3])
        file.write(data_set[3:])
        return file.commit()


def test_a_stored_file_is_part_10_and_named_by_its_hash(spool: Spool) -> None:
    stored = store(spool, DATA_SET)

    content = stored.path.read_bytes()
    assert stored.path.name == f"{hashlib.sha256(content).hexdigest()}.dcm"
    assert stored.size_bytes == len(content)
    assert content.endswith(DATA_SET)
    read = dcmread(stored.path)
    assert read.Modality == "MR"
    assert read.file_meta.MediaStorageSOPClassUID == MRImageStorage
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    length = read.file_meta.FileMetaInformationGroupLength
    assert content[144 + length :] == DATA_SET


def test_the_hash_says_whether_two_instances_are_the_same(spool: Spool) -> None:
    first = store(spool, DATA_SET)

    assert store(spool, DATA_SET) == first
    assert store(spool, DATA_SET[:-1] + b"S").sha256 != first.sha256
    assert store(spool, DATA_SET, ImplicitVRLittleEndian).sha256 != first.sha256


def test_the_hash_of_an_instance_never_changes(spool: Spool) -> None:
    # After a change of the first bytes of spooled files, every known instance that is sent again
    # would be a conflict.
    expected = "4cb9c6d14ef4c633571bd5f80ea1ad05c1e2f3407cfc44737de0350a612c0278"
    assert store(spool, DATA_SET).sha256 == expected


def test_a_file_that_is_not_committed_is_removed(spool: Spool) -> None:
    with spool.create(MRImageStorage, "1.2.3", ExplicitVRLittleEndian) as file:
        file.write(DATA_SET)

    assert [path for path in spool.root.rglob("*") if path.is_file()] == []


def test_the_reserve_includes_the_bytes_to_be_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, reserve_bytes=1)

    assert spool.has_room()
    assert not spool.has_room(10**18)
