"""Checkpoint file of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from core.errors import ConfigurationError
from training.storage import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

_FILE: Final = "checkpoint.pt"


def save(run: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint of a run, replacing the previous one."""
    with atomic_write(run / _FILE) as path:
        torch.save(state, path)


def load(run: Path) -> dict[str, Any] | None:
    """Read the checkpoint of a run; None if there is none yet.

    Only tensors and plain values are loaded, so that a file from elsewhere cannot run code.
    """
    path = run / _FILE
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def require(run: Path) -> dict[str, Any]:
    """Read the checkpoint of a run.

    Raises
    ------
    ConfigurationError
        The run has no checkpoint.
    """
    state = load(run)
    if state is None:
        raise ConfigurationError(f"{run} has no checkpoint.", "Run `python -m training train`.")
    return state
