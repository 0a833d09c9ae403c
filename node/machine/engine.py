"""Container engine, Compose, storage of images, and networks."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.machine.check import MachineCheck, run
from node.machine.requirements import COMPOSE, CONTAINERS, DISK_MB, PROJECT, SUBNET

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROUTES = Path("/proc/net/route")


@dataclass(frozen=True)
class Engine:
    """What a reachable Docker engine says of itself; empty if there is none.

    Parameters
    ----------
    info : dict
        As ``docker info`` gives it.
    """

    info: dict[str, Any] = field(default_factory=dict)

    @property
    def reachable(self) -> bool:
        """Whether there is an engine that answered."""
        return bool(self.info)

    @property
    def memory_mb(self) -> int:
        """Memory that the containers share; of the engine's virtual machine where it has one."""
        return int(self.info.get("MemTotal", 0)) // 2**20

    @property
    def cpus(self) -> int:
        """CPUs that the containers share."""
        return int(self.info.get("NCPU", 0))


def find_engine() -> tuple[Engine, MachineCheck]:
    """Ask the Docker engine about itself."""
    output = run("docker", "info", "--format", "{{json .}}")
    if output is None:
        podman = " (Podman is; the compose file was never tried with it)"
        detail = f"docker is not installed{podman if shutil.which('podman') else ''}"
        return Engine(), _engine_check(
            detail,
            "Install Docker Engine with the Compose plugin: https://docs.docker.com/engine/install/",
        )
    info = _as_object(output.stdout)
    if info.get("ServerVersion"):
        return Engine(info), _describe(info)
    if "host" in info:
        return Engine(), _engine_check(
            "docker is Podman's, with which the compose file was never tried",
            "Install Docker Engine: https://docs.docker.com/engine/install/",
        )
    errors = "; ".join([*(info.get("ServerErrors") or []), output.stderr]).strip("; \n")
    if "permission denied" in errors.lower():
        remedy = "Run `sudo usermod --append --groups docker $USER` and log in again, or use sudo."
    else:
        remedy = "Start it: sudo systemctl enable --now docker"
    return Engine(), _engine_check(f"the engine cannot be reached: {_first_line(errors)}", remedy)


def _engine_check(detail: str, remedy: str) -> MachineCheck:
    return MachineCheck("Docker", False, detail, remedy, needed_by=CONTAINERS)


def _describe(info: dict[str, Any]) -> MachineCheck:
    """Name what an engine does that would disable limits or hide the callers' addresses."""
    problems = []
    options = info.get("SecurityOptions") or []
    if any("rootless" in option for option in options) or "Desktop" in info["OperatingSystem"]:
        problems.append("it may hide the addresses of callers, by which they are admitted")
    limits = ("MemoryLimit", "CpuCfsQuota", "PidsLimit")
    problems += [f"it does not enforce {key}" for key in limits if not info.get(key, True)]
    return MachineCheck(
        "Docker",
        True,
        "; ".join([f"{info['ServerVersion']} on {info['OperatingSystem']}", *problems]),
        "Use Docker Engine as root on a Linux server for production.",
        warning=bool(problems),
        needed_by=CONTAINERS,
    )


def check_compose() -> MachineCheck:
    """Find Docker Compose, as a plug-in or as a program of its own."""
    found = []
    for command in (("docker", "compose"), ("docker-compose",)):
        output = run(*command, "version", "--short")
        numbers = re.match(r"v?(\d+)\.(\d+)", output.stdout) if output else None
        if output is None or output.code != 0 or numbers is None:
            continue
        found.append(f"{' '.join(command)} {_first_line(output.stdout)}")
        if (int(numbers[1]), int(numbers[2])) >= COMPOSE:
            return MachineCheck("Compose", True, found[-1], needed_by=CONTAINERS)
    return MachineCheck(
        "Compose",
        False,
        f"{', '.join(found)} does not know the top-level name" if found else "is not installed",
        "Install the plugin docker-compose-plugin, version {}.{} or newer: "
        "https://docs.docker.com/compose/install/linux/".format(*COMPOSE),
        needed_by=CONTAINERS,
    )


def check_storage(engine: Engine) -> Iterator[MachineCheck]:
    """Check the free space where the engine keeps images and volumes."""
    folder = engine.info.get("DockerRootDir", "")
    try:
        free_mb = shutil.disk_usage(folder).free // 2**20
    except OSError:
        yield MachineCheck(
            "storage of images",
            True,
            f"{folder} is not on this machine",
            f"See to it that {DISK_MB['cpu'] // 1024} GB are free for images, "
            f"{DISK_MB['gpu'] // 1024} GB for the profile gpu.",
            warning=True,
            needed_by=CONTAINERS,
        )
        return
    for profile in CONTAINERS:
        enough = free_mb >= DISK_MB[profile]
        yield MachineCheck(
            "storage of images",
            enough,
            f"{free_mb // 1024} GB free in {folder}, {DISK_MB[profile] // 1024} GB needed",
            "Free space (docker system prune), or set data-root in /etc/docker/daemon.json.",
            needed_by=(profile,),
        )


def check_subnet(engine: Engine) -> MachineCheck:
    """Look for networks of the engine and routes of the host in the compose file's subnet."""
    wanted = ipaddress.ip_network(SUBNET)
    own = {f"{PROJECT}_pacs"}
    taken = []
    interfaces = set()
    for network in _networks() if engine.reachable else []:
        configured = (network.get("IPAM") or {}).get("Config") or []
        subnets = [str(entry.get("Subnet", "")) for entry in configured]
        if network.get("Name") in own:
            interfaces.add(f"br-{network.get('Id', '')[:12]}")
        elif any(_overlaps(subnet, wanted) for subnet in subnets):
            taken.append(f"Docker's network {network.get('Name')}")
    taken += [
        f"a route over {name}"
        for name, subnet in _host_routes()
        if name not in interfaces and not name.startswith("br-") and _overlaps(subnet, wanted)
    ]
    return MachineCheck(
        "network",
        not taken,
        f"{SUBNET} is used by {', '.join(taken)}" if taken else f"{SUBNET} is not in use",
        "Choose another subnet in docker-compose.yml (networks: pacs) and give the demo PACS, "
        "EPVS_CALLERS and EPVS_DESTINATIONS addresses in it.",
        needed_by=CONTAINERS,
    )


def _networks() -> list[dict[str, Any]]:
    listed = run("docker", "network", "ls", "--quiet")
    names = listed.stdout.split() if listed else []
    inspected = run("docker", "network", "inspect", *names) if names else None
    try:
        return list(json.loads(inspected.stdout)) if inspected else []
    except ValueError:
        return []


def _host_routes() -> list[tuple[str, str]]:
    """Return interface and subnet of every IPv4 route except the default route."""
    try:
        lines = _ROUTES.read_text().splitlines()[1:]
    except OSError:
        return []
    routes = []
    for line in lines:
        name, destination, *_, mask = line.split()[:8]
        address, bits = (
            ipaddress.ip_address(bytes.fromhex(text)[::-1]) for text in (destination, mask)
        )
        if int(bits):
            routes.append((name, f"{address}/{bits}"))
    return routes


def _overlaps(subnet: str, wanted: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        other = ipaddress.ip_network(subnet, strict=False)
    except ValueError:
        return False
    return other.version == wanted.version and other.overlaps(wanted)


def _as_object(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no message"
