"""The worker's side of reading: asks a process of its own to read a study, within limits."""

from __future__ import annotations

import json
import logging
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from core.errors import Failed
from core.reasons import Reason
from worker.grading.errors import NotGradable
from worker.grading.reading.limits import Limits
from worker.grading.reading.messages import unpack
from worker.grading.reading.server import DEFECT, MAX_REQUEST, OUT_OF_MEMORY, Ending

if TYPE_CHECKING:
    from core.studies import ClosedStudy
    from worker.grading.records import Float32Array, Reading

log = logging.getLogger(__name__)

# Signals that a process gets for what it did itself, not from outside.
_CRASHES: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGXFSZ}
)
# One thread: a process with several cannot be forked safely.
_ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


class Reader:
    """Reads studies one at a time, each in a process that ends with it.

    Whatever the bytes of a study make a parser or decoder do, this process and the other studies
    are not concerned. `start` loads the libraries ahead of the first study.
    """

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def start(self) -> socket.socket:
        """Start the server process unless it runs; return the connection to it."""
        if (
            self._server is not None
            and self._connection is not None
            and self._server.poll() is None
        ):
            return self._connection
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-P", "-m", "worker.grading.reading", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | _ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection = ours
        return ours

    @property
    def pid(self) -> int | None:
        """Id of the server process, if there is one."""
        return self._server.pid if self._server is not None else None

    def close(self) -> None:
        """End the server process and, with it, a reading in progress."""
        server, self._server = self._server, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if server is not None:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)  # with the process that reads
            server.wait()

    def read_study(self, study: ClosedStudy) -> Reading:
        """Read a study in a process of its own; see `worker.grading.reading.study.read_study`.

        Raises
        ------
        NotGradable
            `Reason.READING_LIMIT`: reading took more processor time or memory than any real study
            needs, or crashed.
        Failed
            From `read_study`; or ``reading-interrupted``: the process was ended from outside, or
            waited too long for the disk or the processor.
        """
        limits = Limits.of_study(study)
        with ExitStack() as stack:
            job, message, voxels = (stack.enter_context(_memory_file()) for _ in range(3))
            job.write(pickle.dumps(study))
            job.seek(0)
            try:
                ending = self._request(limits, [file.fileno() for file in (job, message, voxels)])
            except BaseException:  # the task's time limit, for instance: the reading must not go on
                self.close()
                raise
            log.info(
                "read revision=%s instances=%d cpu_s=%.2f peak_mb=%.0f",
                *(study.revision_id, len(study.instances), ending.cpu_s, ending.peak_mb),
            )
            check_ending(ending, limits)
            message.seek(0)
            reading, shape = unpack(message.read())
            return replace(reading, voxels=_map_array(voxels, shape)) if shape else reading

    def _request(self, limits: Limits, files: list[int]) -> Ending:
        connection, response = self.start(), b""
        with suppress(ConnectionError):
            socket.send_fds(connection, [json.dumps(asdict(limits)).encode()], files)
            response = connection.recv(MAX_REQUEST)
        if not response:
            raise Failed("reading-interrupted", "The reading process was ended from outside.")
        return Ending(**json.loads(response))


def _memory_file() -> BinaryIO:
    return os.fdopen(os.memfd_create("epvs-reading"), "w+b", buffering=0)


def _map_array(file: BinaryIO, shape: tuple[int, ...]) -> Float32Array:
    try:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, np.float32).reshape(shape)
    except ValueError as error:
        raise Failed("reading-invalid", "The reading process sent no valid voxels.") from error


def check_ending(ending: Ending, limits: Limits) -> None:
    """Return if the reading ended by itself; otherwise raise what that says of the study."""
    if ending.exit_code == 0:
        return
    if ending.exit_code == DEFECT:
        raise Failed("unexpected", "The reading process failed.")
    if ending.exit_code == OUT_OF_MEMORY:
        raise NotGradable(
            Reason.READING_LIMIT, f"reading the files needs more than {limits.memory_mb} MiB"
        )
    if -ending.exit_code == signal.SIGXCPU or (ending.cpu_s >= limits.cpu_s > 0):
        raise NotGradable(
            Reason.READING_LIMIT,
            f"reading the files takes more than {limits.cpu_s} s of processor time",
        )
    if -ending.exit_code in _CRASHES:
        name = signal.Signals(-ending.exit_code).name
        raise NotGradable(Reason.READING_LIMIT, f"reading the files ended in {name}")
    why = "took too long" if ending.timed_out else "was ended from outside"
    raise Failed("reading-interrupted", f"The reading process {why}.")
