"""Small disks, and how they become full."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a file system of this size; needs root."""
    folder.mkdir(parents=True)
    size = f"size={megabytes}M,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def fill(ballast: Path) -> None:
    """Take all free space of a disk."""
    with ballast.open("wb") as file, suppress(OSError):
        status = os.statvfs(ballast.parent)
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize)
