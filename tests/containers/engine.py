"""The container engine of the tests: the machine's own, or one started for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CACHE: Final = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "epvs-node" / "containers"
)
"""Images of an engine of our own: base images are made once and used again."""
_START_S: Final = 60.0


@dataclass(frozen=True)
class Engine:
    """A running container engine and the programs that speak to it.

    Attributes
    ----------
    environment : mapping
        Environment under which its programs find it.
    is_own : bool
        Whether the tests started it.
    version : str
    compose : tuple of str
        Command of Compose, with its version.
    compose_version : str
    """

    environment: Mapping[str, str]
    is_own: bool
    version: str
    compose: tuple[str, ...]
    compose_version: str

    def docker(self, *arguments: str, stdin: bytes | None = None, check: bool = True) -> str:
        """Run ``docker``; return what it printed.

        Raises
        ------
        RuntimeError
            It failed; the message has its error output.
        """
        done = subprocess.run(
            ["docker", *arguments],
            env=dict(self.environment),
            input=stdin,
            capture_output=True,
            check=False,
            timeout=900,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.decode()}")
        return done.stdout.decode()

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what the engine says of a container, an image, a volume or a network."""
        described: dict[str, Any] = json.loads(self.docker("inspect", name))[0]
        return described

    def logs(self, container: str, lines: int = 1000) -> str:
        """Return the last lines that a container has printed."""
        done = subprocess.run(
            ["docker", "logs", f"--tail={lines}", container],
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout

    def has_image(self, name: str) -> bool:
        """Whether the image is stored here."""
        return bool(self.docker("images", "--quiet", name).strip())


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Yield the engine of this machine; without one, start one and stop it afterwards.

    Raises
    ------
    RuntimeError
        No engine runs and none can be started; says what to do.
    """
    with ExitStack() as ending:
        environment: dict[str, str] = dict(os.environ)
        version = _server_version(environment)
        is_own = not version
        if is_own:
            environment["DOCKER_HOST"] = ending.enter_context(_own_engine())
            version = _server_version(environment)
        compose, compose_version = _compose(environment)
        yield Engine(environment, is_own, version, compose, compose_version)


@contextmanager
def _own_engine() -> Iterator[str]:
    """Start an engine with folders and a socket of its own; yield its address."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise RuntimeError(
            "No container engine answers. Start Docker and let this account use it, or run "
            "`make container-test` as root, which installs and starts one of its own."
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    address = f"unix://{CACHE}/docker.sock"
    log = CACHE / "engine.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={CACHE}/data",
                f"--exec-root={CACHE}/run",
                f"--pidfile={CACHE}/pid",
                f"--host={address}",
            ],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _START_S
        while not _server_version({**os.environ, "DOCKER_HOST": address}):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"The container engine did not start:\n{log.read_text()[-3000:]}"
                )
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _server_version(environment: Mapping[str, str]) -> str:
    """Return the version of the engine that this environment leads to; empty without one."""
    if shutil.which("docker") is None:
        return ""
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    done = subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _compose(environment: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """Return the command of Compose and its version: the plugin, else the older program."""
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run(
            [*command, "version", "--short"],
            env=dict(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode == 0:
            return command, done.stdout.strip()
    raise RuntimeError("Docker Compose is not installed; `make container-test` installs it.")
