"""File permissions: what the node stores is for the account that it runs as, and nobody else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_UMASK: Final = 0o077
"""Files and folders get no permission for group and others."""
_GROUP_AND_OTHERS: Final = 0o077


def keep_files_private() -> None:
    """Create files for this account only from now on; processes started later inherit that.

    Every process of the node calls it first: images, reports, logs and the database identify
    patients.
    """
    os.umask(PRIVATE_UMASK)


def is_private(path: Path) -> bool:
    """Whether group and others have no permission to an existing file or folder."""
    return not path.stat().st_mode & _GROUP_AND_OTHERS
