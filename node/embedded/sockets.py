"""Embedded stack: Unix sockets, on which its servers are closed to other accounts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Final

from core.errors import ConfigurationError

_LONGEST_PATH: Final = 107
"""Bytes of a socket's path, unix(7): 108 with the final zero."""


def socket_path(folder: Path, name: str) -> Path:
    """Return the absolute path of a socket in `folder`.

    Where it would be longer than the system allows, the socket gets a folder of its own among the
    temporary files; the same one for the same `folder`.

    Raises
    ------
    ConfigurationError
        Another account has made that folder.
    """
    path = folder.absolute() / name
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()
    short = Path(tempfile.gettempdir()) / f"epvs-{os.getuid()}-{digest[:16]}"
    with contextlib.suppress(FileExistsError):
        short.mkdir(mode=0o700)
    status = short.lstat()  # temporary files are open to all accounts, who may have been first
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigurationError(
            f"{short} is not a private folder of this account.",
            "Remove it, or choose a data folder with a shorter path: EPVS_DATA_DIR, --work-dir for "
            "epvs-node demo.",
        )
    return short / name


def private_folder(folder: Path) -> None:
    """Create a folder that only this account may enter, or close an existing one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def accepts_connections_at(path: Path) -> bool:
    """Whether connections to this Unix socket are accepted."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(str(path))
        return True
    return False
