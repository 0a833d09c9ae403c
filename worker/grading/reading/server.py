"""Forks a process for each study to read, and ends it at its limits.

``python -m worker.grading.reading FD``, where FD is one end of a socket pair whose other end
the worker has. The libraries are loaded once, so that a fork is ready within milliseconds. This
process parses no foreign byte itself.

A request is a `Limits` as JSON with three file descriptors: the pickled study, and the files that
the message and the voxels are to be written to. The response is an `Ending` as JSON.
"""

from __future__ import annotations

import errno
import gc
import json
import logging
import mmap
import os
import pickle
import select
import signal
import socket
import sys
import warnings
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np
from pydicom.pixels.decoders.base import get_decoder

from core.errors import Failed
from core.logs import describe
from worker.grading.files.checks import MAX_VOXELS
from worker.grading.files.codestream import CHECKED
from worker.grading.reading.limits import Limits
from worker.grading.reading.messages import pack, pack_failure
from worker.grading.reading.study import read_study

if TYPE_CHECKING:
    from worker.grading.records import Float32Array

DEFECT: Final = 1
OUT_OF_MEMORY: Final = 2
MAX_REQUEST: Final = 4096
_FLOAT32: Final = 4
_MAX_MESSAGE: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ending:
    """How the process that read a study ended.

    Attributes
    ----------
    exit_code : int
        0, `DEFECT`, `OUT_OF_MEMORY`, or the number of a signal, negative.
    timed_out : bool
        Whether it was ended because of the elapsed time.
    cpu_s : float
        Processor time that it used.
    peak_mb : float
        Largest resident memory that it had, in MiB.
    """

    exit_code: int
    timed_out: bool
    cpu_s: float
    peak_mb: float


def serve(connection: socket.socket) -> None:
    """Serve requests until the worker closes its end."""
    while True:
        request, files, _, _ = socket.recv_fds(connection, MAX_REQUEST, 3)
        if not request:
            return
        ending = _run(Limits(**json.loads(request)), files, connection)
        for file in files:
            os.close(file)
        if ending is None:
            return
        connection.send(json.dumps(asdict(ending)).encode())


def _run(limits: Limits, files: list[int], connection: socket.socket) -> Ending | None:
    """Fork, wait, and end the process at its limits; None if the worker has gone."""
    pid = os.fork()
    if pid == 0:
        _child(limits, files)
    ended = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([ended, connection.fileno()], [], [], limits.elapsed_s)
        if ended not in ready:
            os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
    finally:
        os.close(ended)
    if ready and ended not in ready:
        return None
    return Ending(
        os.waitstatus_to_exitcode(status),
        timed_out=not ready,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / 1024,
    )


def _child(limits: Limits, files: list[int]) -> NoReturn:
    code = DEFECT
    try:
        # Decoders write what they think of the bytes to the standard streams.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        limits.apply(MAX_VOXELS * _FLOAT32 + _MAX_MESSAGE)
        _fulfil(*files)
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    finally:
        os._exit(code)


def _fulfil(study_file: int, message_file: int, voxels_file: int) -> None:
    def allocate(shape: tuple[int, ...]) -> Float32Array:
        n_bytes = int(np.prod(shape, dtype=np.int64)) * _FLOAT32
        os.ftruncate(voxels_file, n_bytes)
        return np.frombuffer(mmap.mmap(voxels_file, n_bytes), np.float32).reshape(shape)

    with os.fdopen(study_file, "rb", closefd=False) as file:
        study = pickle.load(file)  # noqa: S301 - written by the worker
    try:
        reading = read_study(study, allocate)
        shape = () if reading.voxels is None else reading.voxels.shape
        message = pack(replace(reading, voxels=None), shape)
    except MemoryError:
        raise
    except Failed as error:
        message = pack_failure(error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:  # of mmap
            raise MemoryError from error
        # The exception's text may quote patient data.
        message = pack_failure(Failed("unexpected", describe(error)))
    with os.fdopen(message_file, "wb", closefd=False) as output:
        output.write(message)


def main() -> None:
    """Run the command."""
    # Both quote what they cannot parse: patient data.
    warnings.simplefilter("ignore")
    logging.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    for syntax in CHECKED:
        get_decoder(syntax)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        serve(connection)
