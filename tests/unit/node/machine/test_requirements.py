"""What ``node.machine`` knows of docker-compose.yml and of the embedded stack is true."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from node.embedded import servers, triton
from node.machine import requirements
from tests.support.paths import ROOT
from tests.unit.test_compose import MIB, bytes_of, substitute

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


@pytest.mark.parametrize("profile", requirements.CONTAINERS)
def test_the_limits_are_those_of_the_compose_file(profile: str) -> None:
    services = [s for s in SERVICES.values() if profile in s.get("profiles", [profile])]
    limits = [bytes_of(s["mem_limit"]) // MIB for s in services if s["restart"] != "no"]
    assert sum(limits) == requirements.LIMITS_MB[profile]


def test_the_cpus_are_those_of_the_compose_file() -> None:
    limits = [float(substitute(str(service["cpus"]), {})) for service in SERVICES.values()]
    assert max(limits) == requirements.CPUS
    text = (ROOT / "docker-compose.yml").read_text()
    assert all(f"cpus: ${{{name}:-" in text for name in requirements.CPU_VARIABLES)


def test_network_ports_and_secrets_are_those_of_the_compose_file() -> None:
    assert COMPOSE["name"] == requirements.PROJECT
    [subnet] = COMPOSE["networks"]["pacs"]["ipam"]["config"]
    assert subnet["subnet"] == requirements.SUBNET
    [port] = SERVICES["receiver"]["ports"]
    assert substitute(port, {}) == f"{requirements.PORT}:11112"
    published = [int(port.split(":")[1]) for port in SERVICES["orthanc"]["ports"]]
    assert published == list(requirements.DEMO_PACS_PORTS)
    assert set(COMPOSE["secrets"]) == set(requirements.SECRETS)


def test_the_embedded_stack_needs_what_it_checks_itself() -> None:
    two_models = 2 * triton._SHARED_MEMORY_MB
    assert two_models == requirements.SHARED_MEMORY_MB
    assert requirements.PYTHON[1] == servers._NEWEST_PYTHON


def test_an_older_python_can_read_the_modules() -> None:
    """Hosts with containers alone have the Python of their distribution."""
    modules = [*(ROOT / "node" / "machine").glob("*.py"), ROOT / "node" / "check.py"]
    modules += [ROOT / "core" / "errors.py", ROOT / "core" / "text.py"]
    modules += [ROOT / "node" / "embedded" / "libpython.py"]
    for path in map(Path, modules):
        ast.parse(path.read_text(), feature_version=(3, 9))
