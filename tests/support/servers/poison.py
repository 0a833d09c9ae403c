"""What a study may do to the worker process that grades it, for `scripted_worker`."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from worker.grading.reading import Reader

if TYPE_CHECKING:
    from core.studies import ClosedStudy

HANG = "poison-hang"
"""Python code that does not end: the soft time limit interrupts it."""
NATIVE_HANG = "poison-native-hang"
"""Code that no signal but SIGKILL interrupts: the hard time limit ends the process."""
MEMORY = "poison-memory"
"""Takes memory until there is none."""
READING_HANG = "poison-reading-hang"
"""The process that reads waits for a file for ever."""
READING_KILLED = "poison-reading-killed"
"""The process that reads is killed from outside, as the kernel does without memory."""


def take(act: str, study: ClosedStudy, folder: Path) -> None:
    """Do to this process what `act` says; for a hang, until a limit ends it."""
    if act == HANG:
        while True:
            time.sleep(0.05)
    if act == NATIVE_HANG:
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL})
        ctypes.PyDLL(None).sleep(3600)  # holds the interpreter's lock: no heartbeat either
    if act == MEMORY:
        _exhaust_memory()
    if act in (READING_HANG, READING_KILLED):
        _read(study, folder / f"{study.study_uid}.fifo", is_killed=act == READING_KILLED)


def _exhaust_memory(allowed_mb: int = 64) -> None:
    """Allocate beyond a limit of address space, as in a container without swap."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + allowed_mb * 2**20, before[1]))
    taken = []
    try:
        while True:
            taken.append(bytearray(2**20))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _read(study: ClosedStudy, fifo: Path, *, is_killed: bool) -> None:
    """Read a study, in a real reading process, from a file whose content never comes."""
    if not fifo.exists():
        os.mkfifo(fifo)
    instances = tuple(replace(instance, path=fifo) for instance in study.instances)
    reader = Reader()
    try:
        reader.start()
        assert reader.pid is not None
        if is_killed:
            threading.Thread(target=_kill_children, args=(reader.pid,), daemon=True).start()
        reader.read_study(replace(study, instances=instances))
    finally:
        reader.close()


def _kill_children(server: int) -> None:
    """Kill the first process that the server forks."""
    while True:
        for child in psutil.Process(server).children():
            child.kill()
            return
        time.sleep(0.02)
