"""What a unit of systemd restricts, imposed on a command without systemd.

``unshare --mount python -m tests.support.systemd_sandbox UNIT STATE CACHE COMMAND…``, as root, runs
a command as a service of that unit would run: as an account of its own without capabilities and
without new privileges; the file system read-only but for the unit's folders; ``/tmp`` and home
folders its own; system calls and address families filtered by libseccomp, as systemd does; memory
that is never writable and executable. STATE and CACHE are mounted as the unit's state and cache.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT

ACCOUNT: Final = 64_321
"""User and group id; no such account needs to exist."""
STATE_FOLDER: Final = Path("/var/lib/epvs-node")
CACHE_FOLDER: Final = Path("/var/cache/epvs-node")

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _EAFNOSUPPORT = 1, 97
_NOT_EQUAL: Final = 1
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_SET_MDWE = 38, 24, 65
_FAMILIES: Final = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
_MOST_FAMILIES: Final = 46
_MS_BIND: Final = 4096
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def read_service(unit: Path) -> dict[str, list[str]]:
    """Return the values of each key in a unit's section [Service]."""
    service: dict[str, list[str]] = {}
    section = ""
    for line in map(str.strip, unit.read_text().splitlines()):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            service.setdefault(name, []).append(value)
    return service


def environment(service: dict[str, list[str]]) -> dict[str, str]:
    """Return the variables that the unit itself sets."""
    text = "\n".join(service["Environment"]).replace("%S", "/var/lib").replace("%C", "/var/cache")
    variables = dict(line.split("=", 1) for line in text.splitlines())
    return {**variables, "HOME": str(STATE_FOLDER), "PATH": os.defpath, "LANG": "C.UTF-8"}


def allowed_calls(service: dict[str, list[str]]) -> set[str]:
    """Return the names of the system calls that the unit allows."""
    allowed: set[str] = set()
    for value in service["SystemCallFilter"]:
        if value.startswith("~"):
            allowed -= _expand(value[1:])
        else:
            allowed |= _expand(value)
    return allowed | _expand("@default")


def _expand(names: str) -> set[str]:
    calls: set[str] = set()
    for name in names.split():
        if not name.startswith("@"):
            calls.add(name)
            continue
        listed = subprocess.run(
            ["systemd-analyze", "--no-pager", "syscall-filter", name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        members = [line.strip() for line in listed if line.startswith("    ")]
        calls |= _expand(" ".join(each for each in members if not each.startswith("#")))
    return calls


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _restrict_files(state: Path, cache: Path) -> None:
    """Make the file system that the unit describes, in this mount namespace.

    The checkout and its Python stand in for the folder of the installation, wherever they are.
    """
    _mount("--make-rprivate", "/")
    shown = {STATE_FOLDER: state, CACHE_FOLDER: cache, ROOT: ROOT}
    python = Path(sys.base_prefix).resolve()
    if not python.is_relative_to("/usr"):
        shown[python] = python
    # Open folders remain within reach when something is mounted over them.
    opened = {target: os.open(source, os.O_PATH) for target, source in shown.items()}
    for folder in {"/tmp", "/var/tmp", "/home", *(f"/{target.parts[1]}" for target in shown)}:
        if folder != "/var":
            mode = "1777" if "tmp" in folder else "755"
            _mount("-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", folder)
    for folder in ("/var/lib", "/var/cache"):
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    for target, descriptor in opened.items():
        target.mkdir(parents=True)
        source = f"/proc/self/fd/{descriptor}".encode()  # mount(8) would look it up by its name
        _check(_LIBC.mount(source, bytes(target), None, _MS_BIND, None), f"bind {target}")
        os.close(descriptor)
    writable = {str(STATE_FOLDER), str(CACHE_FOLDER), "/tmp", "/var/tmp"}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4]
        is_kept = point in writable or point.startswith(("/proc", "/dev", "/sys"))
        if not is_kept and os.path.ismount(point):  # else something is mounted over it
            _mount("-o", "remount,bind,ro", point)


def _restrict_process() -> None:
    for capability in range(64):
        _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(ACCOUNT, ACCOUNT, ACCOUNT)
    os.setresuid(ACCOUNT, ACCOUNT, ACCOUNT)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(_LIBC.prctl(_PR_SET_MDWE, 1, 0, 0, 0), "memory-deny-write-execute")


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def _filter_calls(calls: set[str], families: set[str]) -> None:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_ERRNO | _EPERM))
    for name in calls - {"socket"}:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            _check(library.seccomp_rule_add_array(context, _ALLOW, number, 0, None), name)
    socket = library.seccomp_syscall_resolve_name(b"socket")
    for family in range(_MOST_FAMILIES):
        is_allowed = family in {_FAMILIES[name] for name in families}
        action = _ALLOW if is_allowed else _ERRNO | _EAFNOSUPPORT
        comparison = _Comparison(0, 4, family, 0)  # SCMP_CMP_EQ
        _check(
            library.seccomp_rule_add_array(context, action, socket, 1, ctypes.byref(comparison)),
            "socket",
        )
    _check(library.seccomp_load(context), "load")
    library.seccomp_release(context)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"cannot restrict: {what}")


def main() -> None:
    """Restrict this process and run the command in its place."""
    unit, state, cache, *command = sys.argv[1:]
    service = read_service(Path(unit))
    calls = allowed_calls(service)
    _restrict_files(Path(state), Path(cache))
    os.chdir(STATE_FOLDER)
    _restrict_process()
    given = {
        name: value for name, value in os.environ.items() if name.startswith(("EPVS_", "NOTIFY_"))
    }
    variables = environment(service) | given
    _filter_calls(calls, set(service["RestrictAddressFamilies"][0].split()))
    os.execve(command[0], command, variables)


if __name__ == "__main__":
    main()
