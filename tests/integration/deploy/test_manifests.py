"""deploy/kubernetes against Kubernetes' and KEDA's schemas, and against itself.

No cluster is used: nothing here shows that the objects work.
"""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from core.settings import Settings, load_settings
from core.version import VERSION
from tests.support import kubernetes
from tests.support.kubernetes import OVERLAYS, Manifest, build, find, pod_templates
from tests.support.paths import ROOT
from tests.support.pod_security import violations

VERSIONS = ("1.30", kubernetes_validate.latest_version())
"""Kubernetes 1.30 is the first that knows all fields which the manifests use."""
KEDA: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("keda.yaml").read_text())


def validate(manifest: Manifest, version: str) -> None:
    """Refuse an object with an unknown field or a value of another type."""
    if manifest["kind"] in KEDA:
        jsonschema.validate(manifest, KEDA[manifest["kind"]])
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_fits_the_schemas(overlay: str, version: str) -> None:
    for manifest in build(overlay):
        validate(manifest, version)


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "receiver", "spec.template.spec.containers.0.readinessProb", {}),
        ("Deployment", "receiver", "spec.replicas", "two"),
        ("Service", "receiver", "spec.externalTrafficPolicies", "Local"),
        ("NetworkPolicy", "to-pacs", "spec.egres", []),
        ("ScaledObject", "worker", "spec.maxReplicas", 8),
        ("ScaledObject", "worker", "spec.triggers.0.metadata.targetQueryValue", 4),
        ("TriggerAuthentication", "queue-reader", "spec.secretTargetRef.0.keys", "host"),
    ],
)
def test_an_unknown_field_or_another_type_is_found(
    kind: str, name: str, path: str, value: object
) -> None:
    manifest = copy.deepcopy(find(build("gpu"), kind, name))
    validate(manifest, VERSIONS[-1])
    *steps, last = path.split(".")
    target: Any = manifest
    for step in steps:
        target = target[int(step)] if step.isdigit() else target[step]
    target[last] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(manifest, VERSIONS[-1])


# --- Pod security -----------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_conforms_to_the_policy_restricted(overlay: str) -> None:
    labels = find(build(overlay), "Namespace", "epvs-node")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, template in pod_templates(build(overlay)).items():
        assert violations(template) == [], name


POD: Manifest = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize(
    ("pod", "spec", "context", "container"),
    [
        ({"runAsNonRoot": False}, {}, {}, {}),
        ({"runAsUser": 0}, {}, {}, {}),
        ({"seccompProfile": {"type": "Unconfined"}}, {}, {}, {}),
        ({"seccompProfile": {}}, {}, {}, {}),
        ({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}, {}, {}, {}),
        ({"seLinuxOptions": {"type": "spc_t"}}, {}, {}, {}),
        ({"appArmorProfile": {"type": "Unconfined"}}, {}, {}, {}),
        ({}, {"hostNetwork": True}, {}, {}),
        ({}, {"hostPID": True}, {}, {}),
        ({}, {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, {}, {}),
        ({}, {"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]}, {}, {}),
        ({}, {}, {"runAsNonRoot": False}, {}),
        ({}, {}, {"runAsUser": 0}, {}),
        ({}, {}, {"privileged": True}, {}),
        ({}, {}, {"allowPrivilegeEscalation": True}, {}),
        ({}, {}, {"capabilities": {"drop": ["NET_RAW"]}}, {}),
        ({}, {}, {"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}, {}),
        ({}, {}, {"procMount": "Unmasked"}, {}),
        ({}, {}, {}, {"ports": [{"containerPort": 1, "hostPort": 1}]}),
        ({}, {}, {}, {"livenessProbe": {"tcpSocket": {"host": "192.0.2.1", "port": 1}}}),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_pod_that_the_policy_refuses_is_found(
    kind: str, pod: Manifest, spec: Manifest, context: Manifest, container: Manifest
) -> None:
    good = {"name": "c", "securityContext": CONTAINER}
    changed = {"name": "c", **container, "securityContext": {**CONTAINER, **context}}
    accepted: Manifest = {"securityContext": POD, "containers": [good], "initContainers": [good]}
    assert violations({"spec": accepted}) == []
    refused = {**accepted, "securityContext": {**POD, **pod}, kind: [changed], **spec}
    assert violations({"spec": refused}) != []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_confined_further(overlay: str) -> None:
    """What the policy does not ask for."""
    for template in pod_templates(build(overlay)).values():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsUser"] >= 1000
        for container in kubernetes.containers(template):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
                assert {"cpu", "memory"} <= set(amounts)


# --- References -------------------------------------------------------------------------------

SECRETS = {
    "epvs-node": {"database_url", "broker_url"},
    "epvs-node-owner": {"database_owner_url"},
    "epvs-node-reader": {"host", "port", "dbName", "userName", "password", "sslmode"},
}
"""Secrets that the administrator makes, with their keys (docs/kubernetes.md)."""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_a_pod_mounts_exists(overlay: str) -> None:
    objects = build(overlay)
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for template in pod_templates(objects).values():
        spec = template["spec"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        for volume in spec["volumes"]:
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or ("PersistentVolumeClaim", claim) in names
            projected = volume.get("projected", {}).get("sources", [])
            secrets = [each["secret"]["name"] for each in projected]
            assert set(secrets) | {volume.get("secret", {}).get("secretName", "epvs-node")} <= set(
                SECRETS
            )
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounted = [
            mount["name"]
            for container in kubernetes.containers(template)
            for mount in container["volumeMounts"]
        ]
        assert set(mounted) == volumes
        for container in kubernetes.containers(template):
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in names


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_selector_finds_its_pods(overlay: str) -> None:
    objects = build(overlay)
    templates = pod_templates(objects)
    labels = [template["metadata"]["labels"] for template in templates.values()]

    def is_found(selector: Manifest) -> bool:
        return any(selector.items() <= each.items() for each in labels)

    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "Service":
            [template] = [
                t
                for t in templates.values()
                if spec["selector"].items() <= t["metadata"]["labels"].items()
            ]
            ports = {
                p["name"]: p["containerPort"] for p in template["spec"]["containers"][0]["ports"]
            }
            assert [ports[p["targetPort"]] for p in spec["ports"]] == [
                p["port"] for p in spec["ports"]
            ]
        elif each["kind"] == "NetworkPolicy":
            rules = [*spec.get("ingress", []), *spec.get("egress", [])]
            peers = [peer for rule in rules for key in ("from", "to") for peer in rule.get(key, [])]
            own = [peer for peer in peers if "namespaceSelector" not in peer]
            for selector in [spec, *(peer for peer in own if "podSelector" in peer)]:
                assert is_found(selector["podSelector"].get("matchLabels", {}))
        elif each["kind"] in ("Deployment", "PodDisruptionBudget"):
            assert is_found(spec["selector"]["matchLabels"])
        if each["kind"] == "Deployment":
            template = templates[each["metadata"]["name"]]
            selector = spec["selector"]["matchLabels"]
            assert selector.items() <= template["metadata"]["labels"].items()
            for constraint in template["spec"].get("topologySpreadConstraints", []):
                assert constraint["labelSelector"]["matchLabels"] == selector


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_an_environment(overlay: str) -> None:
    for template in pod_templates(build(overlay)).values():
        for container in kubernetes.containers(template):
            assert all("secretRef" not in source for source in container.get("envFrom", []))
            assert all("value" in variable for variable in container.get("env", []))
            for name, value in kubernetes.environment(build(overlay), container).items():
                assert "://" not in value or name == "EPVS_DESTINATIONS"
                assert "PASSWORD" not in name
    assert all(each["kind"] != "Secret" for each in build(overlay))


# --- What the issue asks of single parts ------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_address_of_a_caller_reaches_the_receiver(overlay: str) -> None:
    service = find(build(overlay), "Service", "receiver")["spec"]
    assert service["type"] == "LoadBalancer"
    assert service["externalTrafficPolicy"] == "Local"
    assert service["ports"][0]["port"] == Settings.model_fields["port"].default
    receiver = find(build(overlay), "Deployment", "receiver")["spec"]
    assert receiver["replicas"] >= 2
    budget = find(build(overlay), "PodDisruptionBudget", "receiver")["spec"]
    assert 0 < budget["minAvailable"] < receiver["replicas"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_allowed_that_no_policy_names(overlay: str) -> None:
    objects = build(overlay)
    default = find(objects, "NetworkPolicy", "default-deny")["spec"]
    assert default == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in (each for each in objects if each["kind"] == "NetworkPolicy"):
        spec = policy["spec"]
        for rule in (*spec.get("ingress", []), *spec.get("egress", [])):
            assert rule["ports"]
            if policy["metadata"]["name"] != "from-pacs":
                assert rule.get("to") or rule.get("from")


def test_the_scaled_deployment_has_no_number_of_its_own() -> None:
    """Applying the manifests again must not undo what the autoscaler did."""
    objects = build("gpu")
    scaling = find(objects, "ScaledObject", "worker")["spec"]
    worker = find(objects, "Deployment", scaling["scaleTargetRef"]["name"])
    assert "replicas" not in worker["spec"]
    [trigger] = scaling["triggers"]
    login = find(objects, "TriggerAuthentication", trigger["authenticationRef"]["name"])
    given = {each["parameter"]: each["key"] for each in login["spec"]["secretTargetRef"]}
    assert set(given.values()) == SECRETS["epvs-node-reader"]
    assert all(each["name"] == "epvs-node-reader" for each in login["spec"]["secretTargetRef"])


def test_only_the_migrations_know_the_password_of_the_owner() -> None:
    for name, template in pod_templates(build("gpu")).items():
        assert ("epvs-node-owner" in str(template)) == (name == "migrations")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_of_this_version(overlay: str) -> None:
    for template in pod_templates(build(overlay)).values():
        for container in kubernetes.containers(template):
            name, _, tag = container["image"].rpartition(":")
            assert re.match(r"\d+\.\d+", tag)
            if "nvidia" not in name:
                assert tag == VERSION


def test_the_example_replaces_every_address_of_the_base() -> None:
    """The base has addresses of the documentation, so that it reaches nothing unless changed."""
    example = (kubernetes.FOLDER / "overlays" / "example-site" / "kustomization.yaml").read_text()
    for policy in (each for each in build("gpu") if each["kind"] == "NetworkPolicy"):
        if "ipBlock" in str(policy):
            assert f"name: {policy['metadata']['name']} }}" in example


def test_the_settings_of_the_example_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = build("example-site")
    receiver = kubernetes.container(pod_templates(objects)["receiver"], "receiver")
    for name, value in kubernetes.environment(objects, receiver).items():
        if name.endswith("_FILE"):
            secret = tmp_path / Path(value).name
            secret.write_text(
                "redis://broker:6379/0" if "BROKER" in name else "postgresql://d/epvs"
            )
            value = str(secret)
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert any(rule.lists("HEALTH", "127.0.0.1") for rule in settings.caller_rules)
    assert any(rule.lists("PACS", "192.0.2.10") for rule in settings.caller_rules)
    assert len(settings.destination_list) == 2


# --- docs/kubernetes.md -----------------------------------------------------------------------

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()


PATCHES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("patch", PATCHES)
def test_the_patches_of_the_page_can_be_applied(patch: str, tmp_path: Path) -> None:
    base = os.path.relpath(kubernetes.FOLDER / "overlays" / "gpu", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(f"resources: [{base}]\n{patch}")
    objects = kubernetes.build_folder(tmp_path)
    assert objects != build("gpu")
    for manifest in objects:
        validate(manifest, VERSIONS[-1])
    for template in pod_templates(objects).values():
        assert violations(template) == []


def test_the_page_makes_the_secrets_that_pods_and_keda_read() -> None:
    created = re.findall(r"create secret generic (\S+) ((?:.|\\\n)*?)(?:#.*)?\n(?! )", PAGE)
    keys = {name: re.findall(r"--from-(?:file|literal)=(\w+)", text) for name, text in created}
    assert {name: set(found) for name, found in keys.items()} == SECRETS
