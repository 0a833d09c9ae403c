"""Embedded stack: the real Triton Inference Server, without a container.

Its programs are those of `node.embedded.servers`. The model repository that it serves is assembled
from ``triton_models/`` in a work folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from core.errors import ConfigurationError
from core.settings import SHIPPED_MODELS_DIR
from node.embedded.process import ManagedProcess
from node.embedded.seccomp import refuse_fchmod
from node.embedded.servers import Servers
from node.embedded.sockets import accepts_connections_at, private_folder, socket_path

if TYPE_CHECKING:
    from types import TracebackType

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - where the Python backend puts its tensors
_SHARED_MEMORY_MB: Final = 16
"""Needed for each version. 19 MiB were seen in use for two; the severity volume takes 16 MiB."""

RESTRICTED: Final = "shared-memory,model-repository,trace,logging"
"""gRPC protocols that no client of the node uses: they open files and change the server."""
_PORT: Final = 8001
"""No port is opened: Triton appends it to the path of its Unix socket."""


def assemble_models(models_dir: Path, target: Path) -> int:
    """Assemble the model repository that the embedded Triton serves.

    Parameters
    ----------
    models_dir : Path
        Folder laid out like ``triton_models/``.
    target : Path
        New folder.

    Returns
    -------
    int
        Number of versions of models.

    Raises
    ------
    ConfigurationError
        `models_dir` holds no model, or one that is incomplete or was changed.
    """
    # Here, because the node's image has the command line, but not this package.
    from triton_models import build_engines

    try:
        models = build_engines.read_models(models_dir)
        build_engines.assemble(models, target)
    except build_engines.BuildError as error:
        remedy = f"{error.remedy} Without EPVS_MODELS_DIR, the models of the package are served."
        raise ConfigurationError(error.problem, remedy) from None
    return sum(len(model.versions) for model in models)


@dataclass
class EmbeddedTriton:
    """A Triton server as a child process; also a context manager.

    It serves gRPC on a Unix socket in its work folder, which only this account may enter. HTTP is
    off: a port is open to every local account.

    Parameters
    ----------
    work_dir : Path
        Emptied, then holds the served model repository; used by this server only.
    log_path : Path
        Output of the server and of its model processes.
    models_dir : Path
        Folder laid out like ``triton_models/``; by default the models of the package.
    threads : int
        onnxruntime threads per model.
    """

    work_dir: Path
    log_path: Path
    models_dir: Path = SHIPPED_MODELS_DIR
    threads: int = 2
    _process: ManagedProcess | None = field(default=None, init=False, repr=False)
    _members: frozenset[int] = field(default=frozenset(), init=False, repr=False)

    @property
    def url(self) -> str:
        """Address of its gRPC service, in the form of ``EPVS_TRITON_URL``."""
        return f"unix:{self._socket}"

    @property
    def _socket(self) -> Path:
        return socket_path(self.work_dir, f"grpc:{_PORT}")

    @property
    def pid(self) -> int | None:
        """Process id of the running server, which is also the id of its process group."""
        running = self._process is not None and self._process.running()
        return self._process.pid if self._process is not None and running else None

    def running(self) -> bool:
        """Whether the server and all of its model processes are alive.

        Triton neither restarts a model process that died, for example of memory exhaustion, nor
        stops reporting the model as ready; the caller must then `stop` and `start` the server.
        """
        pid = self.pid
        return pid is not None and self._members <= _live_members(pid)

    def describe_end(self) -> str:
        """Return how it ended, e.g. ``"killed by SIGKILL"``."""
        if self._process is None or not self._process.running():
            return self._process.describe_end() if self._process is not None else "not started"
        return "has lost a model process"

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines of the log."""
        return self._process.log_tail(lines) if self._process is not None else ""

    def is_ready(self) -> bool:
        """Whether every model of the server that was launched is ready."""
        # It loads every model before it opens the socket.
        if self._process is None or not accepts_connections_at(self._socket):
            return False
        self._members = _live_members(self._process.pid)
        return True

    def start(self, timeout_s: float = 120.0) -> None:
        """Start the server and wait until every model is ready.

        Raises
        ------
        ConfigurationError
            Something that the server needs is missing; says what to do.
        Unavailable
            The server ended or was not ready in time; shows the end of its log.
        """
        try:
            self._launch().wait_until(self.is_ready, timeout_s)
        except BaseException:  # Ctrl-C too: shared memory must not be left behind
            self.stop()
            raise

    def launch(self) -> Self:
        """Start the server without waiting until it `is_ready`.

        Raises
        ------
        ConfigurationError
            Something that the server needs is missing; says what to do.
        """
        self._launch()
        return self

    def _launch(self) -> ManagedProcess:
        servers = Servers.find()
        environment = servers.triton_environment()
        self._remove_shared_memory()  # left behind by a killed server that used this folder
        shutil.rmtree(self.work_dir, ignore_errors=True)
        private_folder(self.work_dir)
        models = self.work_dir.absolute() / "models"
        _check_shared_memory(_SHARED_MEMORY_MB * assemble_models(self.models_dir, models))
        backend = self.work_dir.absolute() / "backends" / "python"
        backend.mkdir(parents=True)
        for part in (servers.triton_dir / "backends" / "python").iterdir():
            (backend / part.name).symlink_to(part)
        # A copy: Triton changes its mode, which only the owner may, and to one that others, and
        # its owner, cannot read.
        with contextlib.suppress(PermissionError):
            servers.triton_stub.chmod(0o755)
        shutil.copyfile(servers.triton_stub, backend / servers.triton_stub.name)
        (backend / servers.triton_stub.name).chmod(0o700)

        # Unique, so that servers on the same machine never open each other's regions.
        memory_prefix = f"epvs-{uuid.uuid4().hex[:12]}-"
        self._memory_prefix_file.write_text(memory_prefix)
        command = [
            str(servers.triton_dir / "bin" / "tritonserver"),
            # Relative: the Python backend builds a shell command from them, without quotes.
            f"--model-repository={models.name}",
            f"--backend-directory={backend.parent.name}",
            f"--backend-config=python,shm-region-prefix-name={memory_prefix}",
            "--disable-auto-complete-config",  # an incomplete config.pbtxt is an error
            f"--grpc-address={self.url.removesuffix(f':{_PORT}')}",
            f"--grpc-port={_PORT}",
            f"--grpc-restricted-protocol={RESTRICTED}:key={uuid.uuid4()}",  # no client has it
            "--allow-http=false",
            "--allow-metrics=false",
            "--log-info=false",  # so that the end of the log shows the error
            "--exit-timeout-secs=5",
        ]
        self._members = frozenset()
        self._process = ManagedProcess(
            "triton",
            command,
            self.log_path,
            env=environment | {"MODEL_THREADS": str(self.threads)},
            cwd=self.work_dir,
            before_exec=refuse_fchmod,
        )
        return self._process

    def terminate(self) -> None:
        """Ask the server to end, without waiting."""
        if self._process is not None:
            self._process.terminate()

    def stop(self, grace_s: float | None = None) -> None:
        """Stop the server and its model processes; does nothing if it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.stop(grace_s)
        self._remove_shared_memory()

    @property
    def _memory_prefix_file(self) -> Path:
        """Holds the name prefix of the server's shared memory, which outlives a killed server."""
        return self.work_dir / "shared-memory"

    def _remove_shared_memory(self) -> None:
        if self._memory_prefix_file.is_file() and (prefix := self._memory_prefix_file.read_text()):
            for region in _SHARED_MEMORY.glob(f"{prefix}*"):
                region.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _live_members(group: int) -> frozenset[int]:
    """Process ids of a process group, without zombies."""
    members = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process ended in the meantime
            # proc(5): pid (name) state ppid pgrp …; the name may hold spaces and parentheses.
            state, _, process_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(process_group) == group and state != "Z":
                members.add(int(path.parent.name))
    return frozenset(members)


def _check_shared_memory(needed_mb: int) -> None:
    statistics = os.statvfs(_SHARED_MEMORY)
    free_mb = statistics.f_bavail * statistics.f_frsize // 2**20
    if free_mb < needed_mb:
        raise ConfigurationError(
            f"{_SHARED_MEMORY} has {free_mb} MiB free; the embedded Triton needs {needed_mb} MiB.",
            "Enlarge it (in a container: --shm-size=256m).",
        )
