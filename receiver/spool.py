"""The spool: received instances as durable Part 10 files named by their SHA-256.

A file is written to ``spool/tmp/<n>/…``, fsynced and renamed to ``spool/ab/ab12….dcm``, whose
folder is then fsynced. Its name is the SHA-256 of the whole file, so ``sha256sum`` verifies a
spool. Its content depends on the instance alone: data set as received, transfer syntax, SOP Class
UID and SOP Instance UID, but not the caller, the time or the version of this software. The same
instance therefore always gives the same file, from any sender.

Any number of processes may share a spool, also on several hosts: each holds the lock of a folder
``tmp/<n>`` for as long as it lives.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import shutil
import struct
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from core.errors import ConfigurationError
from core.uids import derived_uid

if TYPE_CHECKING:
    from types import TracebackType

IMPLEMENTATION_CLASS_UID: Final = derived_uid("implementation-class", {})
"""Part of every spooled file: after a change, every known instance sent again would conflict."""
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_SMALL_WRITE_BYTES: Final = 64 * 1024
"""Smaller pieces are gathered before they are written: senders cut data sets into PDUs of 16 KiB
(storescu), or even into fragments of one byte."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A durable file: fsynced, renamed to its final name, and its folder fsynced."""

    path: Path
    sha256: str
    size_bytes: int


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and File Meta Information of PS3.10 section 7.1.

    Optional elements are left out: Implementation Version Name or Source AE Title would make the
    file depend on more than the instance.
    """
    elements = b"".join(
        (
            struct.pack("<HH2sHL", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01",
            _uid_element(0x0002, sop_class_uid),
            _uid_element(0x0003, sop_instance_uid),
            _uid_element(0x0010, transfer_syntax_uid),
            _uid_element(0x0012, IMPLEMENTATION_CLASS_UID),
        )
    )
    group_length = struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(elements))
    return bytes(128) + b"DICM" + group_length + elements


def _uid_element(number: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0002, number, b"UI", len(value)) + value


class SpoolFile:
    """An instance being written; leaving the ``with`` block without `commit` removes it.

    Parameters
    ----------
    spool : Spool
    head : bytes
        First bytes of the file, see `file_head`.

    Raises
    ------
    OSError
        The file cannot be created.
    """

    def __init__(self, spool: Spool, head: bytes) -> None:
        self._spool = spool
        self.path = spool.next_temporary()
        """Path until the file is committed."""
        self._head_bytes = len(head)
        self._hash = hashlib.sha256()
        self._size = 0
        self._waiting = bytearray(head)
        self._descriptor = os.open(self.path, _NEW_FILE, 0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`; small pieces are gathered, so `flush` before `read`.

        Raises
        ------
        OSError
            The disk is full or failed.
        """
        if len(data) + len(self._waiting) < _SMALL_WRITE_BYTES:
            self._waiting += data
        else:
            self._write_out(data)

    def flush(self) -> None:
        """Write what has been gathered.

        Raises
        ------
        OSError
            The disk is full or failed.
        """
        self._write_out(b"")

    def read(self, position: int, length: int) -> bytes:
        """Read bytes of the data set, from `position` on; fewer at its end.

        Raises
        ------
        OSError
            The disk failed.
        """
        return os.pread(self._descriptor, length, self._head_bytes + position)

    def commit(self) -> StoredFile:
        """Make the file durable under its final name.

        Raises
        ------
        OSError
            The file may not be durable. At worst a complete file without a row remains; it is
            replaced when the instance is sent again.
        """
        self.flush()
        os.fsync(self._descriptor)
        sha256 = self._hash.hexdigest()
        folder = self._spool.folder_of(sha256)
        path = f"{folder}/{sha256}.dcm"
        os.rename(self.path, path)  # noqa: PTH104 - str, see `Spool`
        self._close()
        _fsync_folder(folder)
        return StoredFile(Path(path), sha256, self._size)

    def discard(self) -> None:
        """Remove the file, unless it was committed."""
        if self._descriptor >= 0:
            self._close()
            with suppress(FileNotFoundError):
                os.unlink(self.path)  # noqa: PTH108 - as above

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def _write_out(self, data: bytes | memoryview) -> None:
        parts = [part for part in (memoryview(bytes(self._waiting)), memoryview(data)) if part]
        self._waiting.clear()
        for part in parts:
            self._hash.update(part)
            self._size += len(part)
        while parts:
            written = os.writev(self._descriptor, parts)  # may write less than asked
            while parts and written >= len(parts[0]):
                written -= len(parts.pop(0))
            if parts:
                parts[0] = parts[0][written:]


class Spool:
    """The folder of received instances.

    Parameters
    ----------
    root : Path
    reserve_bytes : int
        Free space below which no more instances are accepted.
    """

    def __init__(self, root: Path, reserve_bytes: int) -> None:
        self.root = root.absolute()
        # str, not Path: building a Path takes longer than the kernel needs to open the file.
        self._root_text = str(self.root)
        self._temporary = ""
        self._numbers = itertools.count()
        self._reserve_bytes = reserve_bytes

    def prepare(self) -> int:
        """Create the folders, remove files that an earlier run left half written, and count those.

        All 256 shard folders exist from the start, so that storing never has to create one. Files
        that other processes are writing are left alone.

        Raises
        ------
        OSError
            The folder cannot be written.
        ConfigurationError
            Its file system has no locks.
        """
        for name in ("tmp", *(f"{shard:02x}" for shard in range(256))):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        _fsync_folder(self.root)
        tmp = self.root / "tmp"
        own = next(n for n in itertools.count() if _try_lock(tmp / f"{n}.lock") is not None)
        (tmp / str(own)).mkdir(exist_ok=True)
        # Where locks should not work after all, names are still those of this process alone.
        self._temporary = f"{tmp}/{own}/{uuid.uuid4().hex}-"
        return _remove_files(tmp / str(own)) + sum(
            _remove_abandoned(folder) for folder in tmp.iterdir() if folder.is_dir()
        )

    def next_temporary(self) -> str:
        """Path for a new file."""
        return f"{self._temporary}{next(self._numbers)}"

    def folder_of(self, sha256: str) -> str:
        """Return the final folder of a file with this hash."""
        return f"{self._root_text}/{sha256[:2]}"

    def has_room(self, size_bytes: int = 0) -> bool:
        """Whether the reserve stays free after `size_bytes` more."""
        return shutil.disk_usage(self.root).free - size_bytes >= self._reserve_bytes

    def create(
        self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str
    ) -> SpoolFile:
        """Begin a file: write the data set, then commit it, or discard it.

        Raises
        ------
        OSError
            The file cannot be created.
        """
        return SpoolFile(self, file_head(sop_class_uid, sop_instance_uid, transfer_syntax_uid))


def _try_lock(path: Path) -> int | None:
    """Lock a file until its descriptor, which is returned, is closed; None if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(
            f"{path} cannot be locked: {error.strerror}.",
            "Mount the file system of EPVS_DATA_DIR with locks (NFS: version 4.1, without nolock).",
        ) from error
    return descriptor


def _remove_abandoned(folder: Path) -> int:
    """Remove the files of a process that no longer lives; return how many."""
    lock = _try_lock(folder.with_suffix(".lock"))
    if lock is None:
        return 0
    try:
        return _remove_files(folder)
    finally:
        os.close(lock)


def _remove_files(folder: Path) -> int:
    leftovers = list(folder.iterdir())
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def _fsync_folder(folder: str | Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
