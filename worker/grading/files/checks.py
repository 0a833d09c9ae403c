"""Checks that a stored file is what was received, and of a size that can be read."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from core.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.studies import SpooledInstance

MAX_VOXELS: Final = 64 * 1024 * 1024
"""Of an instance and of a series: 244 slices of 512 × 512, or 256 MB as float32."""
MAX_FRAMES: Final = 4096
MAX_MATRIX: Final = 4096
"""Rows and columns."""


class UnsafeInstance(Exception):
    """Reading the instance would cost more than any real one does; the message gives the figure."""


def check_digest(instances: Iterable[SpooledInstance]) -> None:
    """Compare the SHA-256 of each file with that of the bytes which were received.

    An instance without a recorded digest (a site's own files, in training) is not compared.

    Raises
    ------
    Failed
        ``spool-changed``: a file's content is not what was received.
        ``spool-unreadable``: it cannot be read.
    """
    for instance in instances:
        if not instance.sha256:
            continue
        try:
            with instance.path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Failed(
                "spool-unreadable", f"Stored instance cannot be read ({type(error).__name__})."
            ) from error
        if found != instance.sha256:
            raise Failed(
                "spool-changed",
                f"The file of instance {instance.sop_instance_uid} is not what was received: its "
                "SHA-256 differs.",
                "Check the disk; discard the file and send the study again.",
            )


def check_size(n_frames: int, rows: int, columns: int, samples: int = 1) -> None:
    """Check the size of decoded pixels.

    Raises
    ------
    UnsafeInstance
        It is over one of the limits.
    """
    if n_frames > MAX_FRAMES:
        raise UnsafeInstance(f"{n_frames} frames (at most {MAX_FRAMES} are read)")
    if max(rows, columns) > MAX_MATRIX:
        raise UnsafeInstance(f"{rows} × {columns} pixels (at most {MAX_MATRIX} × {MAX_MATRIX})")
    if n_frames * rows * columns * samples > MAX_VOXELS:
        raise UnsafeInstance(
            f"{n_frames} × {rows} × {columns} pixels of {samples} samples (at most {MAX_VOXELS})"
        )
