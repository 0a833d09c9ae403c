"""Embedded stack: how the other commands find one that is running.

Redis and Triton listen on free ports, and the stack may have settings that another terminal lacks;
so a running stack says in its data folder where it is reached and what it was told.
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
)


def announce(settings: Settings) -> None:
    """Say in the data folder how this process's stack is reached and set."""
    values = {name: getattr(settings, name) for name in _ANNOUNCED}
    _file(settings).write_text(json.dumps({"pid": os.getpid(), **values}))


def withdraw(settings: Settings) -> None:
    """Take the announcement back."""
    _file(settings).unlink(missing_ok=True)


def attached(settings: Settings) -> Settings:
    """Fill in how a running embedded stack is reached and set; what the operator set stays."""
    found = _read(settings)
    given = settings.model_fields_set
    changes = {name: found[name] for name in _ANNOUNCED if name in found and name not in given}
    return settings.model_copy(update=changes)


def refuse_second(settings: Settings) -> None:
    """Make sure that no other stack works in this data folder.

    Raises
    ------
    ConfigurationError
        One does.
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
    except (OSError, ValueError, KeyError):  # none, unreadable, or its process has ended
        return {}
    return found


def _file(settings: Settings) -> Path:
    return Path(settings.data_dir) / "embedded.json"
