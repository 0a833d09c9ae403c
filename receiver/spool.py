"""Receiving: make one instance durable on disk as a Part 10 file named by its SHA-256.

``spool/tmp/<slot>/…`` is written, fsynced and renamed to ``spool/ab/ab12….dcm``, whose folder
is fsynced too. The name is the SHA-256 of the whole file (``sha256sum`` verifies a spool), and the
file is a function of the instance alone: data set bytes as received, transfer syntax, SOP class and
SOP Instance UID. Nothing of the caller, the time or our version enters it. The same instance sent
twice is therefore the same file, whoever sends it.
"""

from __future__ import annotations

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

from core.uids import derived_uid

if TYPE_CHECKING:
    from types import TracebackType

IMPLEMENTATION_CLASS_UID: Final = derived_uid("implementation-class", {})
"""Part of every spooled file: changing it would make every known instance a conflicting one."""
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_SMALL_WRITE_BYTES: Final = 64 * 1024
"""Less than this waits for more: a sender may cut a data set into PDUs of 16 KiB, as storescu does,
or into fragments of a single byte."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that has survived: fsynced, in place, its folder fsynced."""

    path: Path
    sha256: str
    size_bytes: int


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and File Meta Information of PS3.10 section 7.1.

    Without the optional elements on purpose: Implementation Version Name or Source AE Title would
    make the file depend on more than the instance.
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
    """One instance on its way to disk; leaving the ``with`` block without `commit` removes it.

    Parameters
    ----------
    spool : Spool
    head : bytes
        What the file begins with, see `file_head`.

    Raises
    ------
    OSError
        The file cannot be created.
    """

    def __init__(self, spool: Spool, head: bytes) -> None:
        self._spool = spool
        self.path = spool.next_temporary()
        """Where the file lies until it is committed."""
        self.head_bytes = len(head)
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
        """Append `data`; small pieces are gathered, so `flush` before reading the file.

        Raises
        ------
        OSError
            The disk is full, or worse.
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
            The disk is full, or worse.
        """
        self._write_out(b"")

    def commit(self) -> StoredFile:
        """Make the file durable under its final name.

        Raises
        ------
        OSError
            It is not known to be durable. At most a whole file without a row remains, which the
            next attempt to send the instance replaces by itself.
        """
        self.flush()
        os.fsync(self._descriptor)
        sha256 = self._hash.hexdigest()
        folder = self._spool.folder_of(sha256)
        path = f"{folder}/{sha256}.dcm"
        os.rename(self.path, path)  # noqa: PTH104 - texts, see `Spool`
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
            written = os.writev(self._descriptor, parts)  # may take a part only
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
        Free space below which nothing more is taken.
    slot, n_slots : int
        Which of how many processes that write here this is.
    """

    def __init__(self, root: Path, reserve_bytes: int, *, slot: int = 0, n_slots: int = 1) -> None:
        self.root = root.absolute()
        self.tmp_dir = self.root / "tmp" / str(slot)
        # Text, not paths: making these takes longer than the kernel does to open the file.
        self._root_text = str(self.root)
        self._temporary = f"{self.tmp_dir}/{uuid.uuid4().hex}-"
        self._numbers = itertools.count()
        self._reserve_bytes = reserve_bytes
        self._others = {str(other) for other in range(n_slots) if other != slot}

    def prepare(self) -> int:
        """Create the folders, remove what an earlier run left half written, and count that.

        All 256 shard folders exist from the start, so that storing never has to create one. What
        other processes are writing is left to them.
        """
        for name in ("tmp", *(f"{shard:02x}" for shard in range(256))):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        _fsync_folder(self.root)
        leftovers = [
            path
            for path in (self.root / "tmp").rglob("*")
            if path.is_file() and path.parent.name not in self._others
        ]
        for leftover in leftovers:
            leftover.unlink()
        self.tmp_dir.mkdir(exist_ok=True)
        return len(leftovers)

    def next_temporary(self) -> str:
        """Path for another file that is being written."""
        return f"{self._temporary}{next(self._numbers)}"

    def folder_of(self, sha256: str) -> str:
        """Path of the folder that a file of that hash goes to."""
        return f"{self._root_text}/{sha256[:2]}"

    def has_room(self, size_bytes: int = 0) -> bool:
        """Whether `size_bytes` more leave the reserve untouched."""
        return shutil.disk_usage(self.root).free - size_bytes >= self._reserve_bytes

    def create(
        self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str
    ) -> SpoolFile:
        """Begin a file: write the data set, then commit, or else discard.

        Raises
        ------
        OSError
            The file cannot be created.
        """
        return SpoolFile(self, file_head(sop_class_uid, sop_instance_uid, transfer_syntax_uid))


def _fsync_folder(folder: str | Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
