"""Whoever may list processes, read a container's description or read logs finds no password.

``docker inspect`` shows the environment that a container was given; ``/proc`` and ``ps`` show the
environment and the command line of processes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import redis
import yaml

from node.embedded.servers import Servers
from tests.support.paths import ROOT
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import accepts_connections, wait_until

if TYPE_CHECKING:
    from tests.support.servers.postgres import PostgresServer
    from tests.support.servers.redis import RedisServer

DATABASE_SECRET, BROKER_SECRET = "s3cret-of-the-database", "s3cret-of-the-broker"


@pytest.fixture
def environment(
    tmp_path: Path,
    postgres_server: PostgresServer,
    postgres_template: str,
    redis_server: RedisServer,
) -> dict[str, str]:
    """Settings of a node whose two passwords are in files."""
    database = postgres_server.create_database(postgres_template)
    with redis_server.client() as client:
        client.config_set("requirepass", BROKER_SECRET)
    urls = {
        "EPVS_DATABASE_URL_FILE": f"postgresql://epvs_node:{DATABASE_SECRET}@127.0.0.1:"
        f"{postgres_server.port}/{database}",
        "EPVS_BROKER_URL_FILE": f"redis://:{BROKER_SECRET}@127.0.0.1:{redis_server.port}/0",
    }
    files = {name: str(tmp_path / name.lower()) for name in urls}
    for name, url in urls.items():
        with open(files[name], "w", opener=lambda path, flags: os.open(path, flags, 0o400)) as file:
            file.write(url + "\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EPVS_")}
    return {
        **kept,
        **files,
        "EPVS_DATA_DIR": str(tmp_path / "data"),
        "EPVS_HOST": "127.0.0.1",
        "EPVS_PORT": str(free_port()),
        "EPVS_CALLERS": "*@127.0.0.1",
        "EPVS_LOG_LEVEL": "DEBUG",
        "SCRIPT_FOLDER": str(tmp_path),
    }


def shown_by(process: psutil.Process) -> str:
    """What the kernel shows of a process to its user: command line and environment."""
    with suppress(psutil.Error):  # it may have ended
        environment = "\n".join(f"{k}={v}" for k, v in process.environ().items())
        return "\n".join(process.cmdline()) + "\n" + environment
    return ""


def assert_no_secret(text: str) -> None:
    for secret in (DATABASE_SECRET, BROKER_SECRET):
        assert secret not in text


@pytest.mark.parametrize(
    ("arguments", "ready"),
    [
        (["-m", "receiver"], "listening"),
        (["-m", "worker.housekeeper"], "sweeping"),
        (
            ["-m", "celery", "-A", "tests.support.servers.scripted_worker", "worker", "-c", "1"],
            "ready",
        ),
    ],
    ids=["receiver", "housekeeper", "worker"],
)
def test_no_process_shows_or_logs_a_secret(
    environment: dict[str, str], tmp_path: Path, arguments: list[str], ready: str
) -> None:
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_until(lambda: ready in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            started = psutil.Process(process.pid)
            for each in (started, *started.children(recursive=True)):
                shown = shown_by(each)
                assert "EPVS_DATABASE_URL_FILE=" in shown
                assert_no_secret(shown)
        finally:
            process.terminate()
            process.wait(timeout=60)
    assert_no_secret(log.read_text())


@pytest.mark.parametrize(
    ("arguments", "noticed"),
    [
        (["-m", "worker.housekeeper"], "waiting for the database"),
        (["-m", "node", "doctor"], "FAIL broker"),
        (
            ["-m", "celery", "-A", "tests.support.servers.scripted_worker", "worker", "-c", "1"],
            "Cannot connect to redis://",
        ),
    ],
    ids=["housekeeper", "doctor", "worker"],
)
def test_errors_of_unreachable_servers_contain_no_secret(
    environment: dict[str, str], tmp_path: Path, arguments: list[str], noticed: str
) -> None:
    for name in ("EPVS_DATABASE_URL_FILE", "EPVS_BROKER_URL_FILE"):
        file = Path(environment[name])
        url = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{free_port()}", file.read_text())
        file.unlink()
        file.write_text(url)
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_until(lambda: noticed in " ".join(log.read_text().split()))
        finally:
            process.terminate()
            process.wait(timeout=60)
    assert_no_secret(log.read_text())


def test_the_doctor_hands_no_secret_to_its_child(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with (tmp_path / "output").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "node", "doctor"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )
        doctor, seen = psutil.Process(process.pid), ""
        while process.poll() is None:
            with suppress(psutil.Error):
                seen += "".join(shown_by(child) for child in doctor.children())
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
        output.seek(0)
        printed = output.read()
    assert "worker.commands.doctor" in seen
    assert "reachable, at revision" in printed
    assert "broker: responds" in printed
    assert_no_secret(seen + printed)


def test_the_broker_of_the_compose_file_needs_the_password(tmp_path: Path) -> None:
    """The command of the compose file with the files that its script makes, as a process."""
    (tmp_path / "docker").mkdir()
    script = shutil.copy(ROOT / "docker" / "make-secrets.sh", tmp_path / "docker")
    subprocess.run(["sh", script], check=True)
    folder, port = tmp_path / "secrets", free_port()
    secret = (folder / "redis_configuration").read_text().removeprefix("requirepass ").strip()
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]
    _, configuration, *arguments = service["command"]
    command = [
        *(Servers.find().redis_program, str(folder / Path(configuration).name), *arguments),
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: accepts_connections(port))
            assert secret not in shown_by(psutil.Process(server.pid))
            with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
            url = (folder / "broker_url").read_text().strip()
            with redis.Redis.from_url(url.replace("redis:6379", f"127.0.0.1:{port}")) as node:
                assert node.ping()
                assert node.config_get("appendonly") == {"appendonly": "yes"}
        finally:
            server.terminate()
