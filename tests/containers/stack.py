"""The compose file as a hospital runs it: a copy of the repository, settings, secrets, ``up``."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.containers.engine import Engine
    from tests.containers.images import Images

PROJECT: Final = "epvs-container-test"
PROFILES: Final = "cpu,orthanc"
ORTHANC: Final = "172.28.5.10"
"""Address of the demo PACS in docker-compose.yml."""
NODE_SERVICES: Final = ("receiver", "worker", "delivery", "housekeeper")
ENDED: Final = ("delivered", "committed", "rejected", "failed")
SETTINGS: Final = {"EPVS_QUIET_PERIOD_S": "3", "EPVS_LEASE_S": "10"}
"""Shorter than by default, so that a test does not wait half a minute for each study."""


@dataclass(frozen=True)
class Stack:
    """A compose project of our own.

    Attributes
    ----------
    engine : Engine
    folder : Path
        Copy of the repository, with ``.env`` and ``secrets/``.
    """

    engine: Engine
    folder: Path

    @property
    def command(self) -> list[str]:
        """Compose with the project and its files; runs in `folder` under `environment`."""
        files = ["--file", "docker-compose.yml", "--file", "differences.yml"]
        return [*self.engine.compose, "--project-name", PROJECT, *files]

    @property
    def environment(self) -> dict[str, str]:
        """Environment of `command`."""
        return {**self.engine.environment, "COMPOSE_PROFILES": PROFILES}

    def compose(self, *arguments: str) -> str:
        """Run Compose in the copy of the repository; return what it printed.

        Raises
        ------
        RuntimeError
            It failed; the message has its output.
        """
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if done.returncode != 0:
            raise RuntimeError(f"compose {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def scale(self, **services: int) -> None:
        """Run so many containers of these services."""
        options = [part for name, n in services.items() for part in ("--scale", f"{name}={n}")]
        self.compose("up", "--detach", "--no-build", "--no-recreate", *options)

    def containers(self, service: str) -> list[str]:
        """Return the ids of the service's containers, in their order."""
        labels = [
            f"label=com.docker.compose.{key}"
            for key in (f"project={PROJECT}", f"service={service}")
        ]
        filters = [part for label in labels for part in ("--filter", label)]
        return self.engine.docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()

    def container(self, service: str) -> str:
        """Return the id of the service's only container."""
        (container,) = self.containers(service)
        return container

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in the service's first container; return what it printed."""
        return self.engine.docker("exec", self.containers(service)[0], *command, check=check)

    def errors(self, service: str, *command: str) -> str:
        """Run a command in the service's first container; return what it printed as errors."""
        done = subprocess.run(
            ["docker", "exec", self.containers(service)[0], *command],
            env=dict(self.engine.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stderr

    def is_healthy(self, container: str) -> bool:
        """Whether the container runs and its health check, if it has one, succeeds."""
        state = self.engine.inspect(container)["State"]
        return (
            bool(state["Running"]) and state.get("Health", {}).get("Status", "healthy") == "healthy"
        )

    def wait_healthy(self, *services: str, timeout_s: float = 240) -> float:
        """Wait until every container of these services is healthy; return the seconds waited."""
        began = time.monotonic()

        def unhealthy() -> list[str]:
            return [s for s in services for c in self.containers(s) if not self.is_healthy(c)]

        while waiting := unhealthy():
            if time.monotonic() - began > timeout_s:
                logs = "\n".join(self.logs(service) for service in waiting)
                raise AssertionError(f"{waiting} after {timeout_s:.0f} s:\n{logs}")
            time.sleep(0.5)
        return time.monotonic() - began

    def logs(self, service: str, lines: int = 30) -> str:
        """Return the end of what the service's containers have printed."""
        return "\n".join(
            f"--- {service} {container[:12]}\n{self.engine.logs(container, lines)}"
            for container in self.containers(service)
        )

    def kill(self, container: str) -> None:
        """Kill the first process of a container, as the kernel does when memory is exhausted.

        Not by ``docker kill``, after which the engine does not start the container again.
        """
        os.kill(int(self.engine.inspect(container)["State"]["Pid"]), signal.SIGKILL)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query, which the superuser runs inside the database's container."""
        text = self.execute(
            "postgres",
            *("psql", "--username=postgres", "--dbname=epvs", "--no-psqlrc", "--quiet"),
            *("--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"),
            f"--command=SELECT coalesce(json_agg(row_to_json(found)), '[]') FROM ({sql}) AS found",
        )
        rows: list[dict[str, Any]] = json.loads(text)
        return rows

    def result(self, study_uid: str) -> dict[str, Any] | None:
        """Return the study's row of the view ``worklist_results``."""
        rows = self.query(f"SELECT * FROM worklist_results WHERE study_uid = '{study_uid}'")
        return rows[0] if rows else None

    def wait_for(
        self,
        study_uid: str,
        reached: Callable[[dict[str, Any]], bool] = lambda row: row["status"] in ENDED,
        timeout_s: float = 180,
    ) -> dict[str, Any]:
        """Wait until the study's row satisfies `reached`; return it."""
        deadline = time.monotonic() + timeout_s
        row: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            try:
                row = self.result(study_uid)
            except (RuntimeError, ValueError):
                row = None  # the database is one of the containers that are killed
            if row is not None and reached(row):
                return row
            time.sleep(0.3)
        logs = "\n".join(self.logs(service) for service in NODE_SERVICES)
        raise AssertionError(f"study {study_uid} within {timeout_s:.0f} s: {row}\n{logs}")

    def reports(self, study_uid: str) -> list[bytes]:
        """Return the study's SR documents that the demo PACS has stored, as Part 10 files."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid, "Modality": "SR"}}
        found = json.loads(self.pacs("/tools/find", json.dumps(query).encode()))
        return [self.pacs(f"/instances/{instance}/file") for instance in found]

    def pacs(self, path: str, body: bytes | None = None) -> bytes:
        """Call the REST interface of the demo PACS."""
        request = urllib.request.Request(f"http://{ORTHANC}:8042{path}", data=body)
        with urllib.request.urlopen(request, timeout=30) as response:
            return bytes(response.read())


def checkout(folder: Path) -> None:
    """Copy the files of this repository, as a clone of it would hold them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def selected_services(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the services that the chosen profiles start."""
    text = (folder / "docker-compose.yml").read_text()
    without_variables = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)  # which are not set here
    services = yaml.safe_load(without_variables)["services"]
    chosen = set(PROFILES.split(","))
    return {
        name: service
        for name, service in services.items()
        if chosen & set(service.get("profiles", chosen))
    }


def configure(folder: Path, callers: str, images: Images, *, port: int) -> None:
    """Fill in ``.env`` and ``secrets/`` as the file's head says; write what has to differ here."""
    text = (folder / "docker" / "env.example").read_text()
    values = {
        "COMPOSE_PROFILES": PROFILES,
        "RECEIVER_PORT": str(port),
        "EPVS_CALLERS": callers,
        "EPVS_DESTINATIONS": f"ORTHANC@{ORTHANC}:4242",
    }
    lines = [line for line in text.splitlines() if line.partition("=")[0] not in values]
    lines += [f"{name}={value}" for name, value in values.items()]
    (folder / ".env").write_text("\n".join(lines) + "\n")
    subprocess.run(["sh", "docker/make-secrets.sh"], cwd=folder, check=True)
    (folder / "differences.yml").write_text(yaml.safe_dump(_differences(folder, images)))
    if images.engine.compose == ("docker-compose",):
        path = folder / "docker-compose.yml"
        path.write_text(path.read_text().replace("\nname: epvs-node\n", "\n"))
        images.differences.append(
            f"Compose {images.engine.compose_version} does not know the top-level `name`, which is "
            "left out; current releases are needed for `docker compose`."
        )
    images.differences.append(
        "Shorter times: "
        + "".join(f"`{name}={value}`, " for name, value in SETTINGS.items())
        + "health checks every 5 s."
    )


def _differences(folder: Path, images: Images) -> Mapping[str, Any]:
    """Return a compose file that replaces images and times."""
    services: dict[str, dict[str, Any]] = {}
    for name, service in selected_services(folder).items():
        changed: dict[str, Any] = {}
        if service["image"] in images.used:
            changed["image"] = images.used[service["image"]]
        if name in NODE_SERVICES:
            changed["environment"] = dict(SETTINGS)
        if "healthcheck" in service:
            changed["healthcheck"] = {"interval": "5s"}
        if changed:
            services[name] = changed
    return {"services": services}
