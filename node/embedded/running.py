"""Embedded stack: how other commands find one that is running.

The terminal of another command may lack the settings of the stack. A running stack therefore writes
its addresses and settings into its data folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ConfigurationError

if TYPE_CHECKING:
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


def announce(settings: Settings) -> None:
    """Write the addresses and settings of this process's stack into its data folder."""
    values = settings.model_dump(mode="json", include=set(_ANNOUNCED))
    _file(settings).write_text(json.dumps({"pid": os.getpid(), **values}))


def withdraw(settings: Settings) -> None:
    """Remove what `announce` wrote."""
    _file(settings).unlink(missing_ok=True)


def with_running_stack(settings: Settings) -> Settings:
    """Return the settings completed by those of a running stack; explicit settings win."""
    found = _read(settings)
    given = settings.model_fields_set
    changes = {name: found[name] for name in _ANNOUNCED if name in found and name not in given}
    if "models_dir" in changes:
        changes["models_dir"] = Path(changes["models_dir"])
    return settings.model_copy(update=changes)


def require_not_running(settings: Settings) -> None:
    """Check that no embedded stack is running in this data folder.

    Raises
    ------
    ConfigurationError
        One is.
    """
    found = _read(settings)
    if found:
        raise ConfigurationError(
            f"An embedded stack is running in {settings.data_dir} (process {found['pid']}).",
            "Stop it first, or choose another folder with EPVS_DATA_DIR.",
        )


def _read(settings: Settings) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_file(settings).read_text())
        os.kill(int(found["pid"]), 0)
    except (OSError, ValueError, KeyError):  # no file, an unreadable one, or its process has ended
        return {}
    return found


def _file(settings: Settings) -> Path:
    return Path(settings.data_dir) / "embedded.json"
