"""Embedded stack: a Redis broker that keeps its queue in an append-only file.

It listens on a Unix socket in a folder that only this account may enter, and on no port: a Redis
port is open to every local account, which could let it write files as this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from node.embedded.process import ManagedProcess
from node.embedded.servers import Servers
from node.embedded.sockets import accepts_connections_at, private_folder, socket_path

if TYPE_CHECKING:
    from pathlib import Path

_PERMISSIONS: Final = ("on", "nopass", "~*", "&*", "+@all", "-@admin", "-@dangerous")
"""What Celery needs of Redis: all keys and channels, but no administration and no file."""


def start_redis(work_dir: Path, log_path: Path) -> tuple[ManagedProcess, str]:
    """Start Redis and wait until it accepts connections; return the process and its URL.

    Raises
    ------
    ConfigurationError
        See `socket_path`.
    """
    socket = socket_path(work_dir, "redis.sock")
    private_folder(work_dir)
    process = ManagedProcess(
        "Redis",
        [
            str(Servers.find().redis_program),
            *("--port", "0"),
            *("--unixsocket", str(socket), "--unixsocketperm", "600"),
            *("--user", "default", *_PERMISSIONS),
            *("--dir", str(work_dir.absolute())),
            *("--appendonly", "yes"),
            *("--save", ""),
        ],
        log_path,
    )
    process.wait_until(lambda: accepts_connections_at(socket), timeout_s=20)
    return process, f"redis+socket://{quote(str(socket))}"
