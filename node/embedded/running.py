"""Embedded stack: how other commands find one that is running.

The terminal of another command may lack the settings of the stack. A running stack therefore writes
its addresses and settings into its data folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.errors import ConfigurationError
from node.embedded.sockets import private_folder
from node.embedded.supervision import ComponentState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.settings import Settings

_ANNOUNCED = (
    "ae_title",
    "host",
    "port",
    "callers",
    "destinations",
    "broker_url",
    "triton_url",
    "models_dir",
    "trusted_models",
)
_LOCK_WAIT_S: Final = 1.0


class RunningStack:
    """The embedded stack of this process, as other commands find it.

    It locks its folder: the kernel frees the lock when this process ends, also when it is killed
    or the machine loses power. The process id alone would not do, another process soon has it.

    Raises
    ------
    ConfigurationError
        Another stack is running in this data folder.
    """

    def __init__(self, settings: Settings) -> None:
        folder = _folder(settings)
        private_folder(folder)
        self._file = _file(settings)
        self._lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _lock(self._lock, settings)
        except BaseException:  # Ctrl-C too: nobody else holds the lock yet
            os.close(self._lock)
            raise
        self._file.unlink(missing_ok=True)

    def announce(
        self, settings: Settings, components: Iterable[ComponentState], *, own_broker: bool
    ) -> None:
        """Write addresses, settings and the states of the components into the data folder.

        The URL of a broker that is not the stack's own is left out: it may hold a password.
        """
        values = settings.model_dump(mode="json", include=set(_ANNOUNCED))
        if not own_broker:
            del values["broker_url"]
        values |= {"pid": os.getpid(), "components": [each.as_dict() for each in components]}
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(values))
        partial.replace(self._file)  # readers see all of it, or the one before

    def withdraw(self) -> None:
        """Remove what was announced, and let another stack start."""
        self._file.unlink(missing_ok=True)
        os.close(self._lock)


def with_running_stack(settings: Settings) -> Settings:
    """Return the settings completed by those of a running stack; explicit settings win."""
    found = _read(settings)
    given = settings.model_fields_set
    changes = {name: found[name] for name in _ANNOUNCED if name in found and name not in given}
    if "models_dir" in changes:
        changes["models_dir"] = Path(changes["models_dir"])
    return settings.model_copy(update=changes)


def running_components(settings: Settings) -> list[ComponentState]:
    """Return the states of the components of a running stack; empty if none is running."""
    return [ComponentState(**each) for each in _read(settings).get("components", ())]


def require_not_running(settings: Settings) -> None:
    """Check that no embedded stack is running in this data folder.

    Raises
    ------
    ConfigurationError
        One is.
    """
    if _is_running(settings):
        raise _already_running(settings)


def _lock(descriptor: int, settings: Settings) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a command that looks holds it for a moment
            if time.monotonic() > deadline:
                raise _already_running(settings) from None
            time.sleep(0.02)
        else:
            return


def _is_running(settings: Settings) -> bool:
    try:
        folder = os.open(_folder(settings), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(folder)
    return False


def _already_running(settings: Settings) -> ConfigurationError:
    return ConfigurationError(
        f"An embedded stack is running in {settings.data_dir}.",
        "Stop it first, or choose another folder with EPVS_DATA_DIR.",
    )


def _read(settings: Settings) -> dict[str, Any]:
    if not _is_running(settings):
        return {}
    try:
        found: dict[str, Any] = json.loads(_file(settings).read_text())
    except (OSError, ValueError):  # it is starting, or stopping
        return {}
    return found


def _folder(settings: Settings) -> Path:
    return Path(settings.data_dir) / "embedded"


def _file(settings: Settings) -> Path:
    return Path(settings.data_dir) / "embedded.json"


def list_processes(settings: Settings) -> dict[int, str]:
    """Return the state (proc(5), e.g. ``S`` or ``Z``) of each process of the running stack, by id.

    The process of ``epvs-node up`` and all that descend from it; none if no stack runs here.
    """
    found = _read(settings)
    if not found:
        return {}
    states, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:  # the name, in parentheses, may contain anything
            state, parent, *_ = path.read_text().rpartition(")")[2].split()
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        pid = int(path.parent.name)
        states[pid], parents[pid] = state, int(parent)
    members = {int(found["pid"])}
    while grown := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= grown
    return {pid: states[pid] for pid in members if pid in states}
