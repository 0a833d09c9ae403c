"""Embedded stack: peak memory of its processes, read from ``/proc``."""

from __future__ import annotations

import contextlib
from pathlib import Path

_PROC = Path("/proc")


def peak_memory_mb(pid: int) -> int:
    """Sum of the peak resident memory of a process and of its descendants, in MB.

    An upper bound: shared pages are counted once per process, and the peaks may have been reached
    at different times. 0 where the system has no ``/proc``.
    """
    return sum(_high_water_kb(member) for member in [pid, *_descendants(pid)]) // 1024


def _high_water_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            children += map(int, (task / "children").read_text().split())
    return children + [grandchild for child in children for grandchild in _descendants(child)]
