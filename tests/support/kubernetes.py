"""deploy/kubernetes as a cluster would get it: built by the kustomize in ``kubectl``."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.paths import ROOT

FOLDER: Final = ROOT / "deploy" / "kubernetes"
OVERLAYS: Final = ("cpu", "example-site", "gpu")

Manifest = dict[str, Any]


@cache
def _built(folder: Path) -> str:
    kubectl = Path(sys.executable).with_name("kubectl")
    return subprocess.run(
        [kubectl, "kustomize", folder], check=True, capture_output=True, text=True
    ).stdout


def build_folder(folder: Path) -> list[Manifest]:
    """Every object of a folder with a ``kustomization.yaml``."""
    return list(yaml.safe_load_all(_built(folder)))


def build(overlay: str) -> list[Manifest]:
    """Every object of an overlay of this repository."""
    return build_folder(FOLDER / "overlays" / overlay)


def find(objects: list[Manifest], kind: str, name: str) -> Manifest:
    """The object of this kind and name; a generated name without its hash."""
    [found] = [
        each
        for each in objects
        if each["kind"] == kind and re.sub(r"-[a-z0-9]{10}$", "", each["metadata"]["name"]) == name
    ]
    return found


def pod_templates(objects: list[Manifest]) -> dict[str, Manifest]:
    """Template of each workload's pods, by the workload's name."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]
        for each in objects
        if each["kind"] in ("Deployment", "Job")
    }


def containers(template: Manifest) -> list[Manifest]:
    """All containers of a pod, those that run first included."""
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def container(template: Manifest, name: str) -> Manifest:
    """The container of this name."""
    return next(each for each in containers(template) if each["name"] == name)


def environment(objects: list[Manifest], of: Manifest) -> dict[str, str]:
    """Environment variables of a container: those of its maps, then its own."""
    variables: dict[str, str] = {}
    for source in of.get("envFrom", []):
        name = source["configMapRef"]["name"]
        [data] = [each["data"] for each in objects if each["metadata"]["name"] == name]
        variables |= data
    return variables | {each["name"]: each["value"] for each in of.get("env", [])}


def expand(text: str, variables: dict[str, str]) -> str:
    """What Kubernetes does with ``$(NAME)`` and ``$$`` in commands; an unknown name stays."""
    return re.sub(
        r"\$\$|\$\(([^)]*)\)",
        lambda match: "$" if match[0] == "$$" else variables.get(match[1], match[0]),
        text,
    )
