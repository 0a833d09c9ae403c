"""docker-compose.yml and the Dockerfiles, held against the code that they run.

Without a container engine: every name that they use exists, and the parts fit each other. What the
containers do is tested by ``make container-test`` (tests/containers).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from core import queues
from core.settings import Settings, load_settings
from core.version import VERSION
from node.cli import app
from node.embedded.triton import RESTRICTED
from tests.support.paths import MODELS, ROOT
from worker.app import MAX_MEMORY_MB
from worker.grading.reading.limits import Limits

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
SECRETS_DIR = "/run/secrets/"
NODE_SERVICES = [n for n, service in SERVICES.items() if service["image"].startswith("epvs-node:")]


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Mount point to volume or host folder."""
    pairs = (entry.split(":")[:2] for entry in service.get("volumes", []))
    return {point: source for source, point in pairs}


def substitute(text: str, values: dict[str, str]) -> str:
    """What compose does with ``${NAME:-default}`` and ``${NAME:?message}``."""
    return re.sub(
        r"\$\{(\w+)(?::([-?])([^}]*))?\}",
        lambda match: values.get(match[1], match[3] if match[2] == "-" else ""),
        text,
    )


def make_secrets(folder: Path) -> Path:
    """Run the script that makes the secrets, in a copy of the repository's layout."""
    (folder / "docker").mkdir(exist_ok=True)
    script = shutil.copy(ROOT / "docker" / "make-secrets.sh", folder / "docker")
    subprocess.run(["bash", script], check=True, cwd="/")
    return folder / "secrets"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Folder of the secrets that the script makes."""
    return make_secrets(tmp_path)


@pytest.mark.parametrize("name", NODE_SERVICES)
def test_each_node_service_runs_a_command_that_exists(name: str) -> None:
    command = SERVICES[name]["command"]
    scripts = {script.name for script in importlib.metadata.entry_points(group="console_scripts")}
    match command:
        case ["python", "-m", module]:
            spec = importlib.util.find_spec(module)
            assert spec is not None
            if spec.submodule_search_locations is not None:
                assert importlib.util.find_spec(f"{module}.__main__") is not None
            else:
                assert spec.origin is not None
                assert '__name__ == "__main__"' in Path(spec.origin).read_text()
        case ["celery", "-A", module, "worker", *_]:
            assert "celery" in scripts
            assert hasattr(importlib.import_module(module), "app")
        case ["epvs-node", subcommand]:
            assert "epvs-node" in scripts
            assert subcommand in typer.main.get_command(app).commands  # type: ignore[attr-defined]
        case _:
            pytest.fail(f"unknown kind of command: {command}")


def test_every_part_of_the_node_is_there() -> None:
    commands = [" ".join(SERVICES[name]["command"]) for name in NODE_SERVICES]
    for part in (
        "epvs-node migrate",
        "-m receiver",
        f"--queues={queues.GRADING} ",
        f"--queues={queues.DELIVERY} ",
        "-m worker.housekeeper",
    ):
        assert sum(part in command for command in commands) == 1


@pytest.mark.parametrize("name", NODE_SERVICES)
def test_settings_are_known_and_valid(
    name: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = SERVICES[name]["environment"]
    given = {"EPVS_CALLERS": "PACS@192.0.2.10"}
    settings = {key: value for key, value in environment.items() if key.startswith("EPVS_")}
    for key, value in settings.items():
        if key.endswith("_FILE"):
            assert value.removeprefix(SECRETS_DIR) in SERVICES[name]["secrets"]
            value = str(secrets / value.removeprefix(SECRETS_DIR))
        monkeypatch.setenv(key, substitute(value, given))
    loaded = load_settings()
    assert any(rule.lists("HEALTH", "127.0.0.1") for rule in loaded.caller_rules)
    assert any(rule.lists("PACS", "192.0.2.10") for rule in loaded.caller_rules)
    # What the settings name is what compose provides.
    assert mounts(SERVICES[name])[str(loaded.data_dir)] == "data"
    assert mounts(SERVICES[name])[str(loaded.models_dir)] == "./triton_models"
    for role, url in (("node", loaded.database_url), ("owner", loaded.database_owner_url)):
        if role == "node" or name == "migrations":
            password = (secrets / f"postgres_{role}_password").read_text().strip()
            expected = f"postgresql+psycopg://epvs_{role}:{password}@postgres:5432/epvs"
            assert url == expected
        else:
            assert url == ""
    password = (secrets / "redis_configuration").read_text().removeprefix("requirepass ").strip()
    assert loaded.broker_url == f"redis://:{password}@redis:6379/0"
    aliases = [
        SERVICES[triton]["networks"]["inference"]["aliases"] for triton in ("triton", "triton-cpu")
    ]
    assert all(loaded.triton_url.split(":")[0] in names for names in aliases)


def test_the_published_port_is_where_the_receiver_listens() -> None:
    default = Settings.model_fields["port"].default
    assert [substitute(port, {}) for port in SERVICES["receiver"]["ports"]] == [
        f"{default}:{default}"
    ]


def test_the_example_environment_sets_every_variable_without_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    example = (ROOT / "docker" / "env.example").read_text()
    assert required <= set(re.findall(r"^(\w+)=", example, re.MULTILINE))


def test_secrets_are_files_that_the_script_makes_and_git_ignores(secrets: Path) -> None:
    named = {name: Path(secret["file"]) for name, secret in COMPOSE["secrets"].items()}
    assert {path.name for path in named.values()} == {path.name for path in secrets.iterdir()}
    assert all(path.parent == Path("secrets") for path in named.values())
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    for path in secrets.iterdir():  # the services' users differ from the host's
        assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_secrets_are_random_and_kept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = {path.name: path.read_text() for path in make_secrets(tmp_path / "a").iterdir()}
    again = {path.name: path.read_text() for path in make_secrets(tmp_path / "a").iterdir()}
    other = {path.name: path.read_text() for path in make_secrets(tmp_path / "b").iterdir()}
    assert first == again
    assert all(first[name] != other[name] for name in first)
    assert len(first["postgres_password"].strip()) == 48


def test_the_database_gets_its_roles_at_the_first_start() -> None:
    """The image runs what is in this folder, as superuser in the database named by POSTGRES_DB."""
    postgres = SERVICES["postgres"]
    scripts = ROOT / mounts(postgres)["/docker-entrypoint-initdb.d"]
    (script,) = scripts.iterdir()
    named = re.findall(r'`cat "\$(\w+)"`', script.read_text())
    assert named
    for variable in named:
        assert postgres["environment"][variable].removeprefix(SECRETS_DIR) in postgres["secrets"]
    roles = set(re.findall(r"ALTER ROLE (\w+) LOGIN", script.read_text()))
    assert postgres["environment"]["POSTGRES_USER"] not in roles
    assert roles == {"epvs_owner", "epvs_node"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_in_a_description_of_a_container(name: str) -> None:
    """Environment, command and health check are shown by ``docker inspect``."""
    service = SERVICES[name]
    for key, value in service.get("environment", {}).items():
        assert "://" not in value, "URLs of database and broker contain passwords"
        assert "PASSWORD" not in key or key.endswith("_FILE")
        if key.endswith("_FILE"):
            assert value.removeprefix(SECRETS_DIR) in service["secrets"]
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    shown = json.dumps([service.get("command"), service.get("healthcheck")])
    assert "${" not in shown.replace("$${", "")


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    image, _, tag = substitute(SERVICES[name]["image"], {}).partition(":")
    assert re.fullmatch(r"\d+\.\d+[\w.-]*", tag), f"{image}:{tag} may change under us"
    if image.startswith("epvs-node"):
        assert tag == VERSION


def test_images_of_others_take_a_digest_that_the_example_environment_explains() -> None:
    example = (ROOT / "docker" / "env.example").read_text()
    explained = set(re.findall(r"^#(\w+_DIGEST)=@sha256:", example, re.MULTILINE))
    taken = set()
    for service in SERVICES.values():
        image = service["image"]
        if "build" in service:
            image = service["build"]["args"]["PYTHON_IMAGE"]
            dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
            assert f"ARG PYTHON_IMAGE={substitute(image, {})}\n" in dockerfile
        (variable,) = re.findall(r"\$\{(\w+_DIGEST):-\}$", image)
        digest = f"@sha256:{'0' * 64}"
        assert substitute(image, {variable: digest}).endswith(digest)
        taken.add(variable)
    assert taken == explained


def test_engine_and_server_come_from_the_same_release() -> None:
    for release in ({}, {"NVIDIA_RELEASE": "25.09"}):
        images = [substitute(SERVICES[name]["image"], release) for name in ("engines", "triton")]
        (tag,) = {image.partition(":")[2] for image in images}
        assert tag == f"{release.get('NVIDIA_RELEASE', '26.10')}-py3"
        assert all(image.startswith("nvcr.io/nvidia/") for image in images)


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_networks_and_dependencies_exist(name: str) -> None:
    service = SERVICES[name]
    for source in mounts(service).values():
        if source.startswith("."):
            assert (ROOT / source).exists()
        else:
            assert source in COMPOSE["volumes"]
    assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
    for needed, how in service.get("depends_on", {}).items():
        other = SERVICES[needed]
        # A service outside the chosen profiles must not be needed by one inside.
        assert set(other.get("profiles", service.get("profiles", []))) >= set(
            service.get("profiles", [])
        )
        if how["condition"] == "service_healthy":
            assert "healthcheck" in other
        else:
            assert how["condition"] == "service_completed_successfully"
            assert other["restart"] == "no"


def test_triton_serves_the_engines_that_were_built() -> None:
    builder, server = "engines", "triton"
    python, script, _, source, target = SERVICES[builder]["command"]
    assert python == "python3"
    host_folder = mounts(SERVICES[builder])[source]
    assert (ROOT / host_folder / script.removeprefix(f"{source}/")).is_file()
    assert f"--model-repository={target}/served" in SERVICES[server]["command"]
    volume = "/" + target.split("/")[1]
    assert mounts(SERVICES[builder])[volume] == mounts(SERVICES[server])[volume]
    assert list(SERVICES[server]["depends_on"]) == [builder]
    assert ("deploy" in SERVICES[server]) == ("tensorrt" in target)


@pytest.mark.parametrize(
    "command",
    [
        [part.replace("$$", "$") for part in SERVICES["triton"]["command"]],
        [sys.executable, str(ROOT / "docker" / "triton" / "serve.py"), str(MODELS)],
    ],
    ids=["triton", "triton-cpu"],
)
def test_triton_offers_only_what_the_workers_use(command: list[str], tmp_path: Path) -> None:
    stand_in = tmp_path / "tritonserver"
    stand_in.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o700)

    def options() -> list[str]:
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        return subprocess.run(
            command, env=path, capture_output=True, text=True, check=False
        ).stdout.splitlines()

    started = options()
    assert {"--allow-http=false", "--allow-metrics=false"} < set(started)
    assert "--disable-auto-complete-config" in started
    assert sum(option.startswith("--model-repository=/") for option in started) == 1
    (restricted,) = [option for option in started if "restricted" in option]
    protocols, _, key = restricted.partition(":key=")
    assert protocols == f"--grpc-restricted-protocol={RESTRICTED}"
    assert len(key) == 36
    assert restricted not in options()


AS_ROOT = {"engines", "orthanc"}
"""Services whose image or volume needs it; the compose file says why."""


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name != "orthanc")
    assert ("user" not in service) == (name in AS_ROOT)
    assert str(service.get("user", "")).partition(":")[0] not in ("0", "root")
    for mounted in service.get("volumes", []):
        assert mounted.endswith(":ro") or not mounted.startswith("."), (
            "the host's files are read-only"
        )


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_limited(name: str) -> None:
    service = SERVICES[name]
    assert bytes_of(service["mem_limit"]) >= 512 * MIB
    assert 0 < service["pids_limit"] <= 1024
    assert 0 < float(substitute(str(service["cpus"]), {})) <= 2, "more than some machines have"


def bytes_of(text: str) -> int:
    """A size as compose writes it."""
    return int(text[:-1]) * {"m": MIB, "g": 1024 * MIB}[text[-1]]


MIB = 1024 * 1024


def test_the_limits_of_the_worker_fit_its_studies() -> None:
    [option] = [o for o in SERVICES["worker"]["command"] if o.startswith("--concurrency=")]
    slots = int(option.partition("=")[2])
    share = bytes_of(SERVICES["worker"]["mem_limit"]) // slots
    assert share >= 3 * 1024 * MIB
    # A process that grades, and the one that reads its study, with the libraries of both.
    assert (MAX_MEMORY_MB + Limits(cpu_s=1, elapsed_s=1.0).memory_mb + 256) * MIB <= share
    assert SERVICES["worker"]["pids_limit"] // slots >= 256


def test_no_silent_destination_takes_the_processes_of_another() -> None:
    [option] = [o for o in SERVICES["delivery"]["command"] if o.startswith("--concurrency=")]
    processes = int(option.partition("=")[2])
    assert processes >= 4 * Settings.model_fields["deliveries_per_destination"].default
    assert SERVICES["delivery"]["pids_limit"] // processes >= 16
    # 250 MB for the parent; the others share most of it.
    assert bytes_of(SERVICES["delivery"]["mem_limit"]) >= (250 + processes * 75) * MIB


def test_the_limits_of_the_receiver_fit_its_connections() -> None:
    fields, environment = Settings.model_fields, SERVICES["receiver"]["environment"]
    processes = int(environment["EPVS_RECEIVER_PROCESSES"])
    connections = fields["max_pending_total"].default + fields["max_associations"].default
    assert SERVICES["receiver"]["pids_limit"] > processes * (connections + 32)


def test_database_broker_and_models_are_reachable_only_by_those_who_use_them() -> None:
    assert set(SERVICES["receiver"]["networks"]) == {"pacs", "database"}
    for name, network in {"postgres": "database", "redis": "broker", "triton": "inference"}.items():
        assert list(SERVICES[name]["networks"]) == [network]
        assert "ports" not in SERVICES[name]
        assert COMPOSE["networks"][network] == {"internal": True}
    assert SERVICES["engines"]["network_mode"] == "none"


def test_the_image_has_the_user_of_the_compose_file() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["epvs"]
    uid, gid = re.findall(r"--[ug]id (\d+)", dockerfile)
    for name in NODE_SERVICES:
        assert SERVICES[name]["user"] == f"{uid}:{gid}"


def copied(dockerfile: str) -> list[str]:
    """What a Dockerfile copies from the repository."""
    text = (ROOT / "docker" / dockerfile).read_text()
    lines = re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_the_images_copy_what_exists_and_all_that_is_imported() -> None:
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    for source in copied("Dockerfile") + copied("triton/Dockerfile"):
        assert (ROOT / source).exists()
        assert any(f"!{folder}" in sent for folder in (source, *Path(source).parents))
    assert {"core", "db", "receiver", "worker", "node"} <= set(copied("Dockerfile"))


def test_the_demo_pacs_forwards_to_the_receiver_and_is_admitted_as_documented() -> None:
    orthanc = json.loads((ROOT / "docker" / "orthanc.json").read_text())
    ae_title, host, port = orthanc["DicomModalities"]["epvs"]
    assert ae_title == Settings.model_fields["ae_title"].default
    assert host == "receiver"
    assert port == Settings.model_fields["port"].default
    address = SERVICES["orthanc"]["networks"]["pacs"]["ipv4_address"]
    example = (ROOT / "docker" / "env.example").read_text()
    assert f"{orthanc['DicomAet']}@{address}:{orthanc['DicomPort']}" in example
    assert "pacs" in SERVICES["receiver"]["networks"]
