"""Embedded stack: a Redis broker that keeps its queue in an append-only file.

It listens on a Unix socket in a folder that only this account may enter, and on no port: a Redis
port is open to every local account, which could let it write files as this one.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from node.embedded.process import ManagedProcess
from node.embedded.servers import Servers
from node.embedded.sockets import accepts_connections_at, private_folder, socket_path

if TYPE_CHECKING:
    from pathlib import Path

_PERMISSIONS: Final = ("on", "nopass", "~*", "&*", "+@all", "-@admin", "-@dangerous")
"""What Celery needs of Redis: all keys and channels, but no administration and no file."""


@dataclass(frozen=True)
class EmbeddedRedis:
    """A Redis server as a child process.

    Parameters
    ----------
    work_dir : Path
        Holds its socket and its data; used by this server only.
    log_path : Path
    """

    work_dir: Path
    log_path: Path

    @property
    def url(self) -> str:
        """Its address, in the form of ``EPVS_BROKER_URL``; the same after every start.

        Raises
        ------
        ConfigurationError
            See `socket_path`.
        """
        return f"redis+socket://{quote(str(self._socket))}"

    def discard_data(self) -> None:
        """Remove what an earlier server left behind, which a loss of power may have damaged.

        Nothing is lost: the database knows what there is to do, and notifications are repeated.
        """
        shutil.rmtree(self.work_dir, ignore_errors=True)

    def launch(self) -> ManagedProcess:
        """Start it without waiting until it `is_ready`."""
        private_folder(self.work_dir)
        return ManagedProcess(
            "Redis",
            [
                str(Servers.find().redis_program),
                *("--port", "0"),
                *("--unixsocket", str(self._socket), "--unixsocketperm", "600"),
                *("--user", "default", *_PERMISSIONS),
                *("--dir", str(self.work_dir.absolute())),
                *("--appendonly", "yes"),
                *("--save", ""),
            ],
            self.log_path,
        )

    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        return accepts_connections_at(self._socket)

    @property
    def _socket(self) -> Path:
        return socket_path(self.work_dir, "redis.sock")
