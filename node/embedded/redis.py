"""Embedded stack: a Redis broker on loopback that keeps its queue in an append-only file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.embedded.process import ManagedProcess, accepts_connections, free_port
from node.embedded.servers import Servers

if TYPE_CHECKING:
    from pathlib import Path


def start_redis(work_dir: Path, log_path: Path) -> tuple[ManagedProcess, str]:
    """Start Redis and wait until it accepts connections; return the process and its URL."""
    work_dir.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = ManagedProcess(
        "Redis",
        [
            str(Servers.find().redis_program),
            *("--port", str(port)),
            *("--bind", "127.0.0.1"),
            *("--dir", str(work_dir.absolute())),
            *("--appendonly", "yes"),
            *("--save", ""),
        ],
        log_path,
    )
    process.wait_until(lambda: accepts_connections(port), timeout_s=20)
    return process, f"redis://127.0.0.1:{port}/0"
