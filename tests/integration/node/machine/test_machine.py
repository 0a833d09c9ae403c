"""``epvs-node doctor --machine`` on machines of all kinds.

``docker`` and ``nvidia-smi`` are stand-ins on a PATH of the test's own; what they write was
recorded from Docker 20.10 and 28.2 and docker-compose 1.29.2, or follows NVIDIA's
documentation.
"""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from node.cli import app
from node.machine import configuration, engine, gpu, host, report
from node.machine.requirements import SECRETS
from tests.support.paths import ROOT
from tests.support.servers.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

PERMISSION = (
    "permission denied while trying to connect to the Docker daemon socket at "
    "unix:///var/run/docker.sock: connect: permission denied"
)
STOPPED = (
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
    "Is the docker daemon running?"
)
GIB = 2**30


@dataclass
class Machine:
    """A machine as the commands see it; the programs are written by `examine`."""

    folder: Path
    programs: Path
    info: dict[str, Any] = field(default_factory=dict)
    networks: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.info = {
            "ServerVersion": "28.2.2",
            "OperatingSystem": "Ubuntu 24.04.3 LTS",
            "NCPU": 8,
            "MemTotal": 64 * GIB,
            "DockerRootDir": str(self.folder),
            "Runtimes": {"io.containerd.runc.v2": {"path": "runc"}, "runc": {"path": "runc"}},
            "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin"],
            "MemoryLimit": True,
            "CpuCfsQuota": True,
            "PidsLimit": True,
        }

    def install(self, name: str, script: str) -> None:
        """Write a program that uses the shell's own commands alone."""
        path = self.programs / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def install_docker(self, *, compose: str | None = "2.39.1", error: str = "") -> None:
        info = {**self.info, "ServerVersion": ""} if error else self.info
        answer = {"info": json.dumps(info), "network inspect": json.dumps(self.networks)}
        compose_case = (
            f"echo {compose}"
            if compose
            else "echo 'docker: unknown command: docker compose'; exit 1"
        )
        self.install(
            "docker",
            f"""case "$*" in
            info*) echo {shlex.quote(answer["info"])}
                   [ -z "{error}" ] || {{ echo "{error}" >&2; exit 1; }};;
            "compose version --short") {compose_case};;
            "network ls --quiet") echo 472d30a45ccf;;
            "network inspect "*) echo {shlex.quote(answer["network inspect"])};;
            *) echo "unexpected: $*" >&2; exit 125;;
            esac""",
        )

    def install_gpu(
        self, *cards: str, driver: str = "580.95.05", capability: str = "8.9", code: int = 0
    ) -> None:
        lines = "\n".join(f"echo '{card}, {driver}, {capability}'" for card in cards)
        self.install(
            "nvidia-smi",
            f"""[ "$*" = "--query-gpu=name,memory.total,driver_version,compute_cap \
--format=csv,noheader,nounits" ] || exit 2
            {lines}
            exit {code}""",
        )

    def configure(self, **variables: str) -> None:
        """Set up the folder as docs/operation.md says."""
        lines = {"COMPOSE_PROFILES": "cpu", "EPVS_CALLERS": "PACS@192.0.2.10", **variables}
        (self.folder / ".env").write_text("".join(f"{n}={v}\n" for n, v in lines.items()))
        (self.folder / "secrets").mkdir()
        for name in SECRETS:
            (self.folder / "secrets" / name).touch()

    def examine(self) -> report.Report:
        return report.examine(self.folder)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A server with nothing installed, in a fresh clone."""
    programs, clone = tmp_path / "bin", tmp_path / "clone"
    programs.mkdir()
    (clone / "docker").mkdir(parents=True)
    for name in ("docker-compose.yml", "docker/env.example", "docker/make-secrets.sh"):
        shutil.copy(ROOT / name, clone / name)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    port = free_port()  # other nodes may run on the machine of the test
    monkeypatch.setattr(host, "PORT", port)
    monkeypatch.setattr(configuration, "PORT", port)
    monkeypatch.setattr(host, "DEMO_PACS_PORTS", ())
    monkeypatch.setattr(gpu, "_PCI", tmp_path / "pci")
    monkeypatch.setattr(engine, "_ROUTES", tmp_path / "route")
    monkeypatch.setattr(host, "total_memory_mb", lambda: 64 * 1024)
    monkeypatch.setattr(
        "shutil.disk_usage",
        lambda _: shutil._ntuple_diskusage(2**40, 0, 2**40),
    )
    return Machine(clone, programs)


def failed(found: report.Report) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if not check.ok}


def remedy(found: report.Report, name: str) -> str:
    return next(check.remedy for check in found.checks if check.name == name)


def verdicts(found: report.Report) -> dict[str, bool]:
    return {verdict.profile: verdict.can_run for verdict in found.verdicts}


def test_a_server_with_everything_can_run_all(machine: Machine) -> None:
    machine.info["Runtimes"] = {"nvidia": {"path": "nvidia-container-runtime"}}
    machine.install_docker()
    machine.install_gpu("NVIDIA L4, 23034")
    machine.configure()
    found = machine.examine()
    assert failed(found) == {}
    assert [check.name for check in found.checks if check.warning] == []
    assert verdicts(found) == {"gpu": True, "cpu": True, "make up": True}
    assert found.chosen == "cpu"
    lines = found.as_text().splitlines()
    assert "ok   GPU: NVIDIA L4, 23034 MiB, compute capability 8.9 [gpu]" in lines
    assert lines[-2] == "profile cpu (containers, ONNX Runtime) (chosen in .env): yes"


def test_without_an_engine_only_the_embedded_stack_runs(machine: Machine) -> None:
    found = machine.examine()
    assert failed(found) == {"Docker": "docker is not installed", "GPU": "no NVIDIA GPU was found"}
    assert "docs.docker.com/engine/install" in remedy(found, "Docker")
    assert verdicts(found) == {"gpu": False, "cpu": False, "make up": True}
    assert found.can_run
    machine.install("podman", "exit 0")
    assert "Podman is" in failed(machine.examine())["Docker"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(PERMISSION, "usermod --append --groups docker"), (STOPPED, "systemctl")],
)
def test_an_engine_that_cannot_be_reached_is_named_with_the_remedy(
    machine: Machine, error: str, expected: str
) -> None:
    machine.install_docker(error=error)
    found = machine.examine()
    assert error in failed(found)["Docker"]
    assert expected in remedy(found, "Docker")
    assert not verdicts(found)["cpu"]


def test_podmans_docker_is_not_taken_for_docker(machine: Machine) -> None:
    machine.install("docker", """echo '{"host": {"arch": "amd64"}, "version": {}}'""")
    assert "Podman's" in failed(machine.examine())["Docker"]


def test_a_compose_that_does_not_know_the_file_is_too_old(machine: Machine) -> None:
    machine.install_docker(compose=None)
    assert failed(machine.examine())["Compose"] == "is not installed"
    machine.install("docker-compose", "echo 1.29.2")
    found = machine.examine()
    assert failed(found)["Compose"] == "docker-compose 1.29.2 does not know the top-level name"
    assert "2.3 or newer" in remedy(found, "Compose")
    assert verdicts(found) == {"gpu": False, "cpu": False, "make up": True}
    machine.install("docker-compose", "echo v2.20.3")  # the program of its own, of the new line
    assert "Compose" not in failed(machine.examine())


def test_an_old_driver_prevents_the_gpu_alone(machine: Machine) -> None:
    machine.info["Runtimes"] = {"nvidia": {}}
    machine.install_docker()
    machine.install_gpu("Tesla T4, 15360", driver="535.274.02", capability="7.5")
    found = machine.examine()
    assert failed(found) == {"NVIDIA driver": "535.274.02, 580 or newer needed"}
    assert verdicts(found) == {"gpu": False, "cpu": True, "make up": True}
    assert "no: NVIDIA driver: 535.274.02, 580 or newer needed" in found.as_text()


def test_a_gpu_that_tensorrt_no_longer_knows_is_refused(machine: Machine) -> None:
    machine.install_gpu("Tesla V100-SXM2-16GB, 16384", capability="7.0")
    found = machine.examine()
    assert "compute capability 7.0" in failed(found)["GPU"]
    assert "7.5" in remedy(found, "GPU")


def test_a_gpu_without_the_toolkit_cannot_be_given_to_a_container(machine: Machine) -> None:
    machine.install_docker()
    machine.install_gpu("NVIDIA L4, 23034", "NVIDIA L4, 23034")
    found = machine.examine()
    assert set(failed(found)) == {"NVIDIA Container Toolkit"}
    assert "nvidia-ctk runtime configure" in remedy(found, "NVIDIA Container Toolkit")
    machine.info["DiscoveredDevices"] = [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]
    machine.install_docker()
    assert failed(machine.examine()) == {}


def test_a_gpu_without_a_working_driver_is_told_from_none(machine: Machine, tmp_path: Path) -> None:
    device = tmp_path / "pci" / "0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    assert "no driver" in failed(machine.examine())["GPU"]
    machine.install_gpu(code=9)
    assert "nvidia-smi cannot talk" in failed(machine.examine())["GPU"]
    (device / "class").write_text("0x040300\n")  # the sound device of a graphics card
    assert failed(machine.examine())["GPU"] == "no NVIDIA GPU was found"


def test_little_memory_is_a_warning_and_too_little_a_fault(machine: Machine) -> None:
    machine.info["MemTotal"] = 8 * GIB
    machine.install_docker()
    found = machine.examine()
    [check] = [c for c in found.checks if c.name == "memory" and "cpu" in c.needed_by]
    assert check.ok
    assert check.warning
    assert "--concurrency=1" in check.remedy
    assert "memory" in next(v.to_do for v in found.verdicts if v.profile == "cpu")
    machine.info["MemTotal"] = 3 * GIB
    machine.install_docker()
    assert not verdicts(machine.examine())["cpu"]


def test_docker_refuses_more_cpus_than_there_are(machine: Machine) -> None:
    machine.info["NCPU"] = 1
    machine.install_docker()
    assert failed(machine.examine())["CPUs"] == "1; a service may use 2"
    machine.info["NCPU"] = 4
    machine.install_docker()
    machine.configure(TRITON_CPUS="8", WORKER_CPUS="4")
    assert "as TRITON_CPUS=8 asks" in failed(machine.examine())["CPUs"]


def test_a_port_that_is_taken_is_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        for module in (host, configuration):
            monkeypatch.setattr(module, "PORT", server.getsockname()[1])
        found = machine.examine()
        assert failed(found)[f"port {server.getsockname()[1]}"] == "is in use"
        assert verdicts(found)["make up"] is False
        assert not found.can_run
        machine.install_docker()
        machine.configure(RECEIVER_PORT="1")  # another one for the containers
        assert verdicts(machine.examine()) == {"gpu": False, "cpu": True, "make up": False}
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(host, "DEMO_PACS_PORTS", (server.getsockname()[1],))
        (machine.folder / ".env").write_text("COMPOSE_PROFILES=cpu\nRECEIVER_PORT=1\n")
        assert verdicts(machine.examine())["cpu"]
        (machine.folder / ".env").write_text("COMPOSE_PROFILES=cpu,orthanc\nRECEIVER_PORT=1\n")
        assert "ports of the demo PACS" in failed(machine.examine())


def test_a_subnet_that_is_taken_is_named(machine: Machine, tmp_path: Path) -> None:
    other: dict[str, Any] = {
        "Name": "pacs_default",
        "Id": "a" * 64,
        "IPAM": {"Config": [{"Subnet": "172.28.0.0/16"}]},
    }
    machine.networks.append(other)
    machine.install_docker()
    assert "pacs_default" in failed(machine.examine())["network"]
    other["Name"] = "epvs-node_pacs"
    machine.install_docker()
    assert "network" not in failed(machine.examine())
    header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    default = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    (tmp_path / "route").write_text(header + default)
    assert "network" not in failed(machine.examine())
    vpn = "tun0\t00001CAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"  # 172.28.0.0/16
    (tmp_path / "route").write_text(header + default + vpn)
    assert "a route over tun0" in failed(machine.examine())["network"]


def test_an_engine_that_hides_addresses_or_ignores_limits_is_a_warning(machine: Machine) -> None:
    machine.info["SecurityOptions"] = ["name=rootless"]
    machine.info["CpuCfsQuota"] = False
    machine.install_docker()
    found = machine.examine()
    [docker] = [check for check in found.checks if check.name == "Docker"]
    assert docker.ok
    assert docker.warning
    assert "addresses of callers" in docker.detail
    assert "CpuCfsQuota" in docker.detail


def test_what_is_not_set_up_yet_is_listed_and_prevents_nothing(machine: Machine) -> None:
    machine.install_docker()
    found = machine.examine()
    cpu = next(verdict for verdict in found.verdicts if verdict.profile == "cpu")
    assert (cpu.can_run, cpu.to_do) == (True, [".env", "secrets/"])
    shutil.copy(machine.folder / "docker" / "env.example", machine.folder / ".env")
    [variables] = [check for check in machine.examine().checks if check.name == ".env"]
    assert variables.detail == "EPVS_CALLERS is empty"
    (machine.folder / ".env").unlink()
    machine.configure(COMPOSE_PROFILES="gpu,cpu")
    [variables] = [check for check in machine.examine().checks if check.name == ".env"]
    assert variables.detail == "COMPOSE_PROFILES must name one of gpu and cpu"


def test_the_exit_code_follows_the_profile_that_is_chosen(machine: Machine) -> None:
    machine.install_docker()
    machine.configure(COMPOSE_PROFILES="gpu")
    found = machine.examine()
    assert verdicts(found)["cpu"]
    assert not found.can_run


def test_outside_a_clone_there_is_no_compose_file(machine: Machine, tmp_path: Path) -> None:
    machine.install_docker()
    found = report.examine(tmp_path)
    assert "docker-compose.yml" in failed(found)["checkout"]
    assert verdicts(found) == {"gpu": False, "cpu": False, "make up": True}


def test_a_program_cannot_write_to_the_terminal(machine: Machine) -> None:
    machine.install("docker", r"""printf '\033]0;title\007' >&2; exit 1""")
    text = machine.examine().as_text()
    assert "\x1b" not in text
    assert r"\x1b]0;title" in text


def test_both_commands_print_the_report(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(machine.folder)
    machine.install_docker()
    shown = CliRunner().invoke(app, ["doctor", "--machine"])
    assert shown.exit_code == 0
    assert "profile cpu (containers, ONNX Runtime): yes; see above: .env, secrets/" in shown.stdout
    shown = CliRunner().invoke(app, ["doctor", "--machine", "--json"])
    assert json.loads(shown.stdout)["can_run"] is True


def test_a_clone_without_an_environment_can_be_examined() -> None:
    """Nothing but the standard library is imported."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "node.machine", "--json"],
        cwd=ROOT,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert {v["profile"] for v in json.loads(done.stdout)["verdicts"]} == {"gpu", "cpu", "make up"}
