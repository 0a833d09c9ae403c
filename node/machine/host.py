"""Processor, memory, disk, ports and Python of this machine."""

from __future__ import annotations

import errno
import importlib.util
import os
import platform
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ConfigurationError
from node.embedded.libpython import libpython_dir
from node.machine.check import MachineCheck
from node.machine.requirements import (
    CONTAINERS,
    CPUS,
    DEMO_PACS_PORTS,
    DISK_MB,
    EMBEDDED,
    LIMITS_MB,
    MEMORY_MB,
    PORT,
    PROFILES,
    PYTHON,
    SHARED_MEMORY_MB,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from node.machine.engine import Engine

_MEMORY = Path("/proc/meminfo")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton's Python backend puts its tensors
_PYTHON_REMEDY = "Install Python 3.11 to 3.13 and name it: make PYTHON=python3.12 up"


def check_architecture() -> MachineCheck:
    """Check the processor: images and wheels were tried on x86-64 alone."""
    found = f"{platform.system()} on {platform.machine()}"
    return MachineCheck(
        "architecture",
        found == "Linux on x86_64",
        found,
        "Use Linux on x86-64: nothing else was ever tried.",
    )


def check_memory(engine: Engine) -> Iterator[MachineCheck]:
    """Compare the memory with the need of one study, and with the limits of the services."""
    memory_mb = engine.memory_mb or total_memory_mb()
    for limits_mb in sorted(set(LIMITS_MB.values())):
        yield MachineCheck(
            "memory",
            memory_mb >= MEMORY_MB,
            f"{_gb(memory_mb)} GB; the limits of the services add up to {_gb(limits_mb)} GB",
            "Grade one study at a time: --concurrency=1 and mem_limit 3g for the worker in "
            "docker-compose.yml. Where the limits exceed the memory, the kernel may end any "
            f"service under load. Below {_gb(MEMORY_MB)} GB a study may not fit.",
            warning=memory_mb < limits_mb,
            needed_by=tuple(p for p in CONTAINERS if LIMITS_MB[p] == limits_mb),
        )
    memory_mb = total_memory_mb()
    yield MachineCheck(
        "memory",
        memory_mb >= MEMORY_MB,
        f"{_gb(memory_mb)} GB; {_gb(MEMORY_MB)} GB needed",
        "Use a machine with more memory.",
        needed_by=(EMBEDDED,),
    )


def total_memory_mb() -> int:
    """Return the memory of this machine in MiB; 0 where it is unknown."""
    try:
        lines = _MEMORY.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("MemTotal")), 0)


def check_cpus(engine: Engine, limits: dict[str, float]) -> MachineCheck:
    """Compare the number of CPUs with what single services may use.

    Parameters
    ----------
    engine : Engine
    limits : dict
        Limits that ``.env`` sets, by variable.
    """
    cpus = engine.cpus or os.cpu_count() or 1
    too_high = [f"{name}={value:g}" for name, value in limits.items() if value > cpus]
    ok = cpus >= CPUS and not too_high
    return MachineCheck(
        "CPUs",
        ok,
        f"{cpus}; Docker starts no service that may use more, as {', '.join(too_high)} asks"
        if too_high
        else f"{cpus}; a service may use {CPUS:g}",
        "Lower them in .env." if too_high else "Use a machine with more CPUs.",
        needed_by=CONTAINERS,
    )


def check_ports(published: int, *, with_demo_pacs: bool) -> Iterator[MachineCheck]:
    """Check that nothing listens where the receiver and the demo PACS will.

    Parameters
    ----------
    published : int
        Port at which the compose file offers the receiver.
    with_demo_pacs : bool
        Whether ``.env`` chooses it.
    """
    for port in sorted({published, PORT}):
        busy = not _is_free("", port)
        yield MachineCheck(
            f"port {port}",
            not busy,
            "is in use" if busy else "is free",
            "If this node runs already, all is well. Else stop what listens (`ss --listening --tcp "
            "--processes`), or choose another: RECEIVER_PORT in .env, EPVS_PORT for make up.",
            needed_by=tuple(p for p in PROFILES if port == (PORT if p == EMBEDDED else published)),
        )
    taken = [str(port) for port in DEMO_PACS_PORTS if not _is_free("127.0.0.1", port)]
    yield MachineCheck(
        "ports of the demo PACS",
        not (taken and with_demo_pacs),
        f"in use: {', '.join(taken)}" if taken else "are free",
        "Stop what listens there, or leave the demo PACS out: no `orthanc` in COMPOSE_PROFILES.",
        warning=bool(taken),
        needed_by=CONTAINERS,
    )


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def check_embedded(folder: Path) -> Iterator[MachineCheck]:
    """Check what the node without containers needs: disk, shared memory and Python."""
    free_mb = shutil.disk_usage(folder).free // 2**20
    yield MachineCheck(
        "disk",
        free_mb >= DISK_MB[EMBEDDED],
        f"{free_mb // 1024} GB free in {folder}, {_gb(DISK_MB[EMBEDDED])} GB needed",
        "Free space.",
        needed_by=(EMBEDDED,),
    )
    shared_mb = shutil.disk_usage(_SHARED_MEMORY).free // 2**20 if _SHARED_MEMORY.is_dir() else 0
    yield MachineCheck(
        "shared memory",
        shared_mb >= SHARED_MEMORY_MB,
        f"{shared_mb} MiB free in {_SHARED_MEMORY}, {SHARED_MEMORY_MB} MiB needed",
        "Enlarge it (in a container: --shm-size=256m).",
        needed_by=(EMBEDDED,),
    )
    yield from _check_python()


def _check_python() -> Iterator[MachineCheck]:
    version = platform.python_version()
    oldest, newest = PYTHON
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    yield MachineCheck(
        "Python",
        oldest <= sys.version_info[:2] <= newest and not missing,
        f"{version} has no module {', '.join(missing)}" if missing else version,
        f"Install the Debian package python{version.rpartition('.')[0]}-venv."
        if missing
        else _PYTHON_REMEDY,
        needed_by=(EMBEDDED,),
    )
    name = "shared library of Python"
    try:
        found = libpython_dir(version.rpartition(".")[0])
    except ConfigurationError as error:
        yield MachineCheck(name, False, error.message, error.remedy, needed_by=(EMBEDDED,))
    else:
        yield MachineCheck(name, True, f"in {found}", needed_by=(EMBEDDED,))


def _gb(megabytes: int) -> str:
    return f"{megabytes / 1024:.3g}"
