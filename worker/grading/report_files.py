"""Report files: the exact bytes of every object, written to disk before any is sent."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING
from uuid import uuid4

from core.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from core.results import Report


def write_report_files(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write each object of `report` durably to `folder`, named by its SHA-256.

    Returns
    -------
    tuple of Path
        One for each object, in the order of the report; absolute.

    Raises
    ------
    Unavailable
        The write failed for a reason unrelated to the study, e.g. a full disk.
    """
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = tuple(_write(entry.content, folder) for entry in report.objects)
        _fsync(folder)  # only now do the names survive a power failure
    except OSError as error:
        raise Unavailable(
            "disk",
            f"The report cannot be written: {error.strerror}.",
            "Check the space and the permissions of EPVS_DATA_DIR.",
        ) from error
    return paths


def _write(content: bytes, folder: Path) -> Path:
    path = folder / f"{hashlib.sha256(content).hexdigest()}.dcm"
    # Two workers may write the same report; on several hosts they may have the same process id.
    unfinished = path.with_suffix(f".{uuid4().hex}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)  # leaves no partial object behind on a full disk


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
