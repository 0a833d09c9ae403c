"""Between grading and delivery: keeps the exact bytes of every object before any is sent."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from core.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from core.results import Report


def keep_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write each object of `report` durably to `folder`, named by its SHA-256.

    Returns
    -------
    tuple of Path
        One for each object, in the report's order; absolute.

    Raises
    ------
    Unavailable
        The disk is full, or worse: nothing that the study could help.
    """
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = tuple(_write(entry.content, folder) for entry in report.objects)
        _fsync(folder)  # only now do the names survive a power cut
    except OSError as error:
        raise Unavailable(
            "disk",
            f"The report cannot be written: {error.strerror}.",
            "Check the space and the permissions of EPVS_DATA_DIR.",
        ) from error
    return paths


def _write(content: bytes, folder: Path) -> Path:
    path = folder / f"{hashlib.sha256(content).hexdigest()}.dcm"
    # The process id keeps two workers with the same report off each other's unfinished file.
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)  # a full disk leaves no partial object behind


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
