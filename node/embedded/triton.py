"""Inference on one machine: the real Triton Inference Server, without a container.

The server, its Python backend and its libraries come from the ``nvidia-pytriton`` wheel in an
environment of their own (``.triton-env``, made by ``make``), since that wheel needs an older numpy
than the node. What is served is assembled from ``triton_models/`` in a work folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from core.errors import ConfigurationError
from node.embedded.process import ManagedProcess, free_port

if TYPE_CHECKING:
    from types import TracebackType

REPOSITORY: Final = Path(__file__).resolve().parents[2]

# Read from inside the server's environment: its interpreter need not be ours.
_DESCRIBE_INTERPRETER: Final = """
import json, sys, sysconfig
get = sysconfig.get_config_var
print(json.dumps({
    "version": f"{sys.version_info[0]}.{sys.version_info[1]}",
    "packages": sysconfig.get_path("platlib"),
    "folders": [get("LIBDIR") or "", f"{sys.base_prefix}/lib", f"/usr/lib/{get('MULTIARCH')}",
                "/usr/lib64", "/usr/lib", "/usr/local/lib"],
}))
"""
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - where the Python backend puts its tensors
_NEEDED_SHARED_MEMORY_MB: Final = 32
"""The severity volume takes 16 MiB of it; 19 MiB were seen in use in all."""


@dataclass(frozen=True, slots=True)
class _ServerParts:
    """Where the server's parts lie in its environment."""

    environment: Path
    version: str
    packages: Path
    libpython_dir: Path

    @classmethod
    def locate(cls, environment: Path) -> _ServerParts:
        python = environment / "bin" / "python"
        if not python.is_file():
            raise ConfigurationError(
                f"The embedded Triton's environment {environment} does not exist.",
                "Run `make .triton-env/.ready`.",
            )
        answer = json.loads(
            subprocess.run(
                [python, "-c", _DESCRIBE_INTERPRETER], check=True, capture_output=True, text=True
            ).stdout
        )
        library = f"libpython{answer['version']}.so.1.0"
        for folder in answer["folders"]:
            if folder and Path(folder, library).is_file():
                parts = cls(environment, answer["version"], Path(answer["packages"]), Path(folder))
                break
        else:
            raise ConfigurationError(
                f"The embedded Triton needs {library}, which this Python installation lacks.",
                f"Install the Debian package libpython{answer['version']}.",
            )
        if not parts.stub.is_file():
            raise ConfigurationError(
                f"{environment} holds no Triton for Python {parts.version} (nvidia-pytriton).",
                "Remove it and build it with one from 3.8 to 3.13: `make PYTHON=python3.12 demo`.",
            )
        return parts

    @property
    def server_dir(self) -> Path:
        return self.packages / "pytriton" / "tritonserver"

    @property
    def stub(self) -> Path:
        stubs = self.server_dir / "python_backend_stubs"
        return stubs / self.version / "triton_python_backend_stub"

    @property
    def child_environment(self) -> dict[str, str]:
        """Variables under which the server and its Python processes find their libraries."""
        libraries = [self.packages / "nvidia_pytriton.libs", self.libpython_dir]
        return {
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            # The interpreters inside the model processes ignore PYTHONPATH; they take the
            # virtual environment of the first python3 on PATH.
            "PATH": f"{self.environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }


def assemble_models(models_dir: Path, target: Path) -> None:
    """Build the repository that the embedded Triton serves.

    Parameters
    ----------
    models_dir : Path
        ``triton_models/``: the configuration variants and the ONNX networks.
    target : Path
        New folder: for each model the embedded variant as ``config.pbtxt``, which also says
        which weights each version has, and the version folders.

    Raises
    ------
    ConfigurationError
        `models_dir` holds no network.
    """
    networks = sorted(models_dir.absolute().glob("*/[0-9]*/model.onnx"))
    if not networks:
        raise ConfigurationError(
            f"{models_dir} holds no model with a version and a model.onnx.",
            "Run in the repository's folder, or set EPVS_MODELS_DIR to its triton_models.",
        )
    for network in networks:
        source = network.parent.parent
        served = target / source.name
        version = served / network.parent.name
        version.mkdir(parents=True)
        (version / "model.onnx").symlink_to(network)
        shutil.copy(models_dir / "python_backend" / "model.py", version)
        config = served / "config.pbtxt"
        if not config.exists():
            shutil.copy(source / "config.embedded.pbtxt", config)
        with config.open("a") as text, network.open("rb") as weights:
            sha256 = hashlib.file_digest(weights, "sha256").hexdigest()
            text.write(
                f'parameters {{ key: "weights_sha256.{version.name}" '
                f'value {{ string_value: "{sha256}" }} }}\n'
            )


@dataclass
class EmbeddedTriton:
    """A Triton server as a child process; also a context manager.

    Parameters
    ----------
    work_dir : Path
        The repository that is served is assembled here; the folder is the server's alone.
    log_path : Path
        Everything that the server and its model processes print.
    models_dir : Path
        The repository's ``triton_models/``.
    environment : Path
        Virtual environment that holds ``nvidia-pytriton`` and ``onnxruntime``.
    port : int
        gRPC port on loopback; 0 for any free one.
    threads : int
        onnxruntime threads of each model.
    """

    work_dir: Path
    log_path: Path
    models_dir: Path = REPOSITORY / "triton_models"
    environment: Path = REPOSITORY / ".triton-env"
    port: int = 0
    threads: int = 2
    _process: ManagedProcess | None = field(default=None, init=False, repr=False)
    _members: frozenset[int] = field(default=frozenset(), init=False, repr=False)

    @property
    def url(self) -> str:
        """Where it answers gRPC, in the form of ``EPVS_TRITON_URL``."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs; it leads the group of its model processes."""
        running = self._process is not None and self._process.running()
        return self._process.pid if self._process is not None and running else None

    def running(self) -> bool:
        """Whether the server and every one of its model processes live.

        Triton neither restarts a model process that died (killed for memory, say) nor stops
        saying that the model is ready: whoever started this server must `stop` and `start` it.
        """
        pid = self.pid
        return pid is not None and self._members <= _living_members(pid)

    def start(self, timeout_s: float = 120.0) -> None:
        """Start the server and wait until every model is ready.

        Raises
        ------
        ConfigurationError
            A part is missing; says which and how to get it.
        Unavailable
            The server ended or was not ready in time; shows the end of its log.
        """
        parts = _ServerParts.locate(self.environment.absolute())
        self._remove_shared_memory()  # of a server here that was killed
        _check_shared_memory()
        shutil.rmtree(self.work_dir, ignore_errors=True)
        backend = self.work_dir.absolute() / "backends" / "python"
        backend.mkdir(parents=True)
        for part in (*(parts.server_dir / "backends" / "python").iterdir(), parts.stub):
            (backend / part.name).symlink_to(part)
        models = self.work_dir.absolute() / "models"
        assemble_models(self.models_dir, models)

        self.port = self.port or free_port()
        http_port = free_port()
        # Unique, so that several servers of one machine never open each other's regions.
        memory_prefix = f"epvs-{uuid.uuid4().hex[:12]}-"
        self._memory_note.write_text(memory_prefix)
        command = [
            str(parts.server_dir / "bin" / "tritonserver"),
            f"--model-repository={models}",
            f"--backend-directory={backend.parent}",
            f"--backend-config=python,shm-region-prefix-name={memory_prefix}",
            "--disable-auto-complete-config",  # what config.pbtxt leaves out is an error
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.port}",
            "--http-address=127.0.0.1",  # for the readiness check below alone
            f"--http-port={http_port}",
            "--http-thread-count=1",
            "--allow-metrics=false",
            "--log-info=false",  # so that the end of the log is what went wrong
            "--exit-timeout-secs=5",
        ]
        self._process = ManagedProcess(
            "triton",
            command,
            self.log_path,
            env=parts.child_environment | {"MODEL_THREADS": str(self.threads)},
        )
        try:
            self._process.wait_until(lambda: _is_ready(http_port), timeout_s)
            self._members = _living_members(self._process.pid)
        except BaseException:  # Ctrl-C too: the shared memory is to be removed as well
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and its model processes; harmless when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.stop()
        self._remove_shared_memory()

    @property
    def _memory_note(self) -> Path:
        """File that says how the server's shared memory is named: it outlives a killed server."""
        return self.work_dir / "shared-memory"

    def _remove_shared_memory(self) -> None:
        if self._memory_note.is_file() and (prefix := self._memory_note.read_text()):
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


def _is_ready(http_port: int) -> bool:
    """Whether the server answers and every model of its repository is loaded."""
    connection = http.client.HTTPConnection("127.0.0.1", http_port, timeout=2)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    return False


def _living_members(group: int) -> frozenset[int]:
    """Process ids of a process group, without those that ended and were not yet waited for."""
    members = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended between the listing and the reading
            # proc(5): pid (name) state ppid pgrp …; the name may hold spaces and parentheses.
            state, _, process_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(process_group) == group and state != "Z":
                members.add(int(path.parent.name))
    return frozenset(members)


def _check_shared_memory() -> None:
    statistics = os.statvfs(_SHARED_MEMORY)
    free_mb = statistics.f_bavail * statistics.f_frsize // 2**20
    if free_mb < _NEEDED_SHARED_MEMORY_MB:
        raise ConfigurationError(
            f"{_SHARED_MEMORY} has {free_mb} MiB free; "
            f"the embedded Triton needs {_NEEDED_SHARED_MEMORY_MB} MiB.",
            "Enlarge it (in a container: --shm-size=256m).",
        )
