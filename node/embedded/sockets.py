"""Embedded stack: Unix sockets, on which its servers are closed to other accounts."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_PATH: Final = 107
"""Bytes of a socket's path, unix(7): 108 with the final zero."""


def socket_path(folder: Path, name: str) -> Path:
    """Return the absolute path of a socket in `folder`.

    Raises
    ------
    ConfigurationError
        It is longer than the system allows.
    """
    path = folder.absolute() / name
    excess = len(os.fsencode(path)) - _LONGEST_PATH
    if excess > 0:
        raise ConfigurationError(
            f"The path {path} of a socket is too long by {excess} bytes.",
            "Choose a data folder with a shorter path: EPVS_DATA_DIR, --work-dir for epvs-node "
            "demo.",
        )
    return path


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
