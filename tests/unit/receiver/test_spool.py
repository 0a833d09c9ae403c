"""Spooled files are named by their hash, equal for equal instances, and complete or absent."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from core.errors import ConfigurationError
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

    assert [*spool.root.glob("tmp/*/*"), *spool.root.rglob("*.dcm")] == []


def test_a_start_removes_only_what_no_process_is_writing(spool: Spool) -> None:
    """Another host may share the spool: its first process must not be taken for a dead one."""
    abandoned = spool.root / "tmp" / "7" / "half"
    abandoned.parent.mkdir()
    abandoned.write_bytes(b"half")
    with spool.create(MRImageStorage, "1.2.3", ExplicitVRLittleEndian) as file:
        file.write(DATA_SET)
        other = Spool(spool.root, reserve_bytes=0)

        assert other.prepare() == 1
        assert not abandoned.exists()
        stored = file.commit()

    assert store(other, DATA_SET) == stored


def test_the_folder_of_a_process_that_died_is_used_again(spool: Spool) -> None:
    code = """
import sys, os
from pathlib import Path
from core.errors import ConfigurationError
from receiver.spool import Spool
spool = Spool(Path(sys.argv[1]), 0)
spool.prepare()
file = spool.create("1.2", "1.2.3", "1.2.840.10008.1.2.1")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, spool.root], check=False)
    left = list((spool.root / "tmp").glob("*/*"))
    assert len(left) == 1

    next_one = Spool(spool.root, reserve_bytes=0)
    assert next_one.prepare() == 1
    assert next_one.next_temporary().startswith(str(left[0].parent))


def test_a_file_system_without_locks_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(ConfigurationError, match=r"0\.lock cannot be locked") as caught:
        Spool(tmp_path, reserve_bytes=0).prepare()
    assert "nolock" in caught.value.remedy


def test_the_reserve_includes_the_bytes_to_be_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, reserve_bytes=1)

    assert spool.has_room()
    assert not spool.has_room(10**18)
