"""deploy/kubernetes says the same as docker-compose.yml: commands, settings, limits, accounts.

Differences are listed here with their reasons, and nothing else may differ.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.support import kubernetes
from tests.support.kubernetes import Manifest, build, container, environment, expand, pod_templates
from tests.support.paths import ROOT
from worker.app import HARD_TIME_LIMIT_S

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

PARTS = [
    ("gpu", "migrations", "migrations", "migrations"),
    ("gpu", "receiver", "receiver", "receiver"),
    ("gpu", "housekeeper", "housekeeper", "housekeeper"),
    ("gpu", "worker", "worker", "worker"),
    ("gpu", "delivery", "worker", "delivery"),
    ("gpu", "triton", "engines", "engines"),
    ("gpu", "triton", "triton", "triton"),
    ("cpu", "triton", "triton", "triton-cpu"),
]
"""Overlay, workload, container, and the service of the compose file that does the same."""

OTHER_SETTINGS = {"REMAP_SIGTERM"}
"""Makes a worker stop after 30 s; a pod that is scaled down has the time to finish its study."""
OTHER_VALUES = {
    "EPVS_DATA_DIR": "a volume belongs to a group, so the node makes a folder for itself alone",
    "EPVS_CALLERS": "a site adds its own",
}
AS_ROOT = {"engines"}
"""In compose a new volume belongs to root; in Kubernetes `fsGroup` gives it to the account."""


def unescape(text: str) -> str:
    """What compose makes of a text without variables of its environment."""
    text = re.sub(r"(?<!\$)\$\{\w+(?::?[-?]([^}]*))?\}", lambda match: match[1] or "", text)
    return text.replace("$$", "$")


def part(overlay: str, workload: str, name: str) -> tuple[Manifest, Manifest]:
    template = pod_templates(build(overlay))[workload]
    return template["spec"], container(template, name)


def in_bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z]*)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"m": 2**20, "g": 2**30, "Mi": 2**20, "Gi": 2**30}[unit]


@pytest.mark.parametrize(("overlay", "workload", "name", "service"), PARTS)
def test_commands_are_the_same(overlay: str, workload: str, name: str, service: str) -> None:
    _, found = part(overlay, workload, name)
    expected = SERVICES[service].get("command")
    if expected is None:  # the image's own, which Kubernetes states
        dockerfile = (ROOT / SERVICES[service]["build"]["dockerfile"]).read_text()
        expected = yaml.safe_load(re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)[-1])
    assert [expand(each, {}) for each in found["command"]] == [unescape(each) for each in expected]
    assert "args" not in found


@pytest.mark.parametrize(("overlay", "workload", "name", "service"), PARTS)
def test_settings_are_the_same(overlay: str, workload: str, name: str, service: str) -> None:
    _, found = part(overlay, workload, name)
    expected = SERVICES[service].get("environment", {})
    given = environment(build(overlay), found)
    assert set(given) == set(expected) - OTHER_SETTINGS
    for key, value in given.items():
        if key not in OTHER_VALUES:
            assert value == unescape(str(expected[key])), key


@pytest.mark.parametrize(("overlay", "workload", "name", "service"), PARTS)
def test_limits_are_the_same(overlay: str, workload: str, name: str, service: str) -> None:
    _, found = part(overlay, workload, name)
    limits = found["resources"]["limits"]
    assert in_bytes(limits["memory"]) == in_bytes(SERVICES[service]["mem_limit"])
    assert float(limits["cpu"]) == float(unescape(str(SERVICES[service]["cpus"])))
    devices = SERVICES[service].get("deploy", {}).get("resources", {}).get("reservations", {})
    gpus = sum(each["count"] for each in devices.get("devices", []))
    assert limits.get("nvidia.com/gpu", 0) == gpus


@pytest.mark.parametrize(("overlay", "workload", "name", "service"), PARTS)
def test_images_and_accounts_are_the_same(
    overlay: str, workload: str, name: str, service: str
) -> None:
    spec, found = part(overlay, workload, name)
    assert found["image"] == unescape(SERVICES[service]["image"])
    context = spec["securityContext"]
    if service not in AS_ROOT:
        account = f"{context['runAsUser']}:{context['runAsGroup']}"
        assert account == SERVICES[service]["user"]
    assert ("shareProcessNamespace" in spec) == SERVICES[service].get("init", False)


@pytest.mark.parametrize(("overlay", "workload", "name", "service"), PARTS)
def test_what_is_mounted_where_is_the_same(
    overlay: str, workload: str, name: str, service: str
) -> None:
    _, found = part(overlay, workload, name)
    expected = {entry.split(":")[1]: entry for entry in SERVICES[service].get("volumes", [])}
    mounts = {mount["mountPath"]: mount for mount in found["volumeMounts"]}
    # The models are an image: only pods that read them get a copy.
    left_out = (
        {"/models"} if service in ("migrations", "receiver", "housekeeper", "delivery") else set()
    )
    left_out |= {"/data"} if service == "migrations" else set()
    extra = {"/tmp"} | ({"/run/secrets"} if SERVICES[service].get("secrets") else set())
    extra |= {"/dev/shm"} if "shm_size" in SERVICES[service] else set()
    assert set(mounts) == (set(expected) - left_out) | extra
    for path, entry in expected.items():
        if path in mounts and path != "/models":
            assert mounts[path].get("readOnly", False) == entry.endswith(":ro")


@pytest.mark.parametrize(("overlay", "workload", "name", "service"), PARTS)
def test_health_checks_are_the_same(overlay: str, workload: str, name: str, service: str) -> None:
    _, found = part(overlay, workload, name)
    check = SERVICES[service].get("healthcheck")
    probes = [value for key, value in found.items() if key.endswith("Probe")]
    assert bool(probes) == (check is not None)
    if check is None:
        return
    how, *command = check["test"]
    expected = ["sh", "-c", *command] if how == "CMD-SHELL" else command
    for probe in probes:
        assert [expand(each, {}) for each in probe["exec"]["command"]] == [
            unescape(each) for each in expected
        ]
        assert f"{probe['timeoutSeconds']}s" == check["timeout"]
    assert f"{found['readinessProbe']['periodSeconds']}s" == check["interval"]


NETWORKS = {
    "database": "to-database",
    "broker": "to-broker",
    "inference": "to-triton",
    "pacs": "to-pacs",
}
"""Network of the compose file, and the label of pods that may connect to what is in it."""


@pytest.mark.parametrize("name", ["migrations", "receiver", "housekeeper", "worker", "delivery"])
def test_pods_talk_to_those_whose_networks_they_share_in_compose(name: str) -> None:
    labels = set(pod_templates(build("gpu"))[name]["metadata"]["labels"])
    expected = {NETWORKS[network] for network in SERVICES[name]["networks"]}
    if name == "receiver":  # it responds to callers, and connects to none of them
        expected -= {"to-pacs"}
    assert {label for label in labels if label.startswith("to-")} == expected


def test_what_waits_in_compose_waits_in_kubernetes() -> None:
    for name, template in pod_templates(build("gpu")).items():
        needs = SERVICES.get(name, {}).get("depends_on", {})
        waits = [each["name"] for each in template["spec"].get("initContainers", [])]
        assert ("wait-for-migrations" in waits) == ("migrations" in needs)
        assert ("engines" in waits) == ("engines" in needs)


@pytest.mark.parametrize("name", ["worker", "delivery"])
def test_a_worker_that_is_scaled_down_has_the_time_to_finish(name: str) -> None:
    spec = pod_templates(build("gpu"))[name]["spec"]
    assert spec["terminationGracePeriodSeconds"] > HARD_TIME_LIMIT_S


def test_the_models_are_copied_from_where_their_image_has_them() -> None:
    dockerfile = (kubernetes.FOLDER / "models.Dockerfile").read_text()
    [source] = re.findall(r"^COPY \. (\S+)$", dockerfile, re.MULTILINE)
    for overlay in ("gpu", "cpu"):
        for name in ("worker", "triton"):
            _, found = part(overlay, name, "models")
            assert found["command"] == ["cp", "-R", f"{source}/.", "/models/"]
