"""The policy "restricted" of Kubernetes' Pod Security Standards, as a list of rules.

Kubernetes enforces it in the namespace of the node. The rules, for Linux, are those of
https://kubernetes.io/docs/concepts/security/pod-security-standards/ ("Baseline" and "Restricted").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"),
    *("persistentVolumeClaim", "projected", "secret"),
}
_SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies"),
    *("net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time"),
    *("net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes"),
}
_SECCOMP = {"RuntimeDefault", "Localhost"}
_APPARMOR = {"RuntimeDefault", "Localhost"}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(template: dict[str, Any]) -> list[str]:
    """Say for which reasons a namespace with the policy "restricted" refuses a pod."""
    spec = template["spec"]
    pod = spec.get("securityContext", {})
    found = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    for volume in spec.get("volumes", []):
        found += [f"volume type {kind}" for kind in set(volume) - {"name"} - _VOLUMES]
    found += [
        f"sysctl {each['name']}" for each in pod.get("sysctls", []) if each["name"] not in _SYSCTLS
    ]
    found += [f"pod: {problem}" for problem in _context(pod)]
    annotations = template.get("metadata", {}).get("annotations", {})
    found += [
        f"annotation {key}"
        for key, value in annotations.items()
        if key.startswith("container.apparmor.security.beta.kubernetes.io/")
        and value != "runtime/default"
        and not value.startswith("localhost/")
    ]
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            found += [f"{container['name']}: {problem}" for problem in _container(container, pod)]
    return found


def _context(context: dict[str, Any]) -> Iterator[str]:
    """Rules that hold for the context of a pod as for that of a container."""
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "SELinux options"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in _APPARMOR:
        yield "AppArmor profile"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in _SECCOMP:
        yield "seccomp profile"


def _container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    context = container.get("securityContext", {})
    yield from _context(context)
    if context.get("privileged"):
        yield "privileged"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    if any(_names_a_host(container.get(key, {})) for key in _PROBES):
        yield "a probe names a host"
    if any(_names_a_host(hook) for hook in container.get("lifecycle", {}).values()):
        yield "a hook names a host"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities are not dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if context.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in _SECCOMP:
        yield "no seccomp profile"


_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def _names_a_host(handler: dict[str, Any]) -> bool:
    return any(
        isinstance(action, dict) and action.get("host")
        for action in (handler.get("httpGet"), handler.get("tcpSocket"))
    )
