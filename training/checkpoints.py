"""Checkpoints of a training run: written whole or not at all, so that a run can go on."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

import torch

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_LOG: Final = logging.getLogger(__name__)
_FILE: Final = "checkpoint.pt"


def save(run: Path, state: dict[str, Any]) -> None:
    """Replace the run's checkpoint."""
    run.mkdir(parents=True, exist_ok=True)
    partial = run / f"{_FILE}.part"
    torch.save(state, partial)
    partial.rename(run / _FILE)


def load(run: Path) -> dict[str, Any] | None:
    """Read the run's checkpoint; None before the first.

    Only tensors and plain values are read: a checkpoint from elsewhere cannot run code.
    """
    path = run / _FILE
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def require(run: Path) -> dict[str, Any]:
    """Read the run's checkpoint.

    Raises
    ------
    ConfigurationError
        There is none.
    """
    state = load(run)
    if state is None:
        raise ConfigurationError(f"{run} holds no checkpoint.", "Run `python -m training train`.")
    return state


def check_same(state: dict[str, Any], cohort: dict[str, Any], plan: dict[str, Any]) -> None:
    """Refuse to go on with other subjects of a site, or another plan, than the run began with.

    Other subjects would change the split, and subjects that choose the epoch would have been
    trained on. More epochs are no other plan.

    Raises
    ------
    ConfigurationError
    """
    stored = state["plan"]
    changed = [name for name in plan if name != "epochs" and plan[name] != stored.get(name)]
    if changed:
        raise ConfigurationError(
            f"The run began with another {', '.join(changed)} than it is given now.",
            "Name a new --run.",
        )
    before = state["cohort"]
    if "site" in (before["kind"], cohort["kind"]) and before != cohort:
        raise ConfigurationError(
            "The run began with another cohort than it is given now.", "Name a new --run."
        )


def record(run: Path, epoch: int, **figures: float) -> None:
    """Log one epoch and append it to the run's ``log.jsonl``."""
    run.mkdir(parents=True, exist_ok=True)
    rounded = {name: round(value, 4) for name, value in figures.items()}
    with (run / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"epoch": epoch, **rounded}) + "\n")
    _LOG.info("epoch %d: %s", epoch, ", ".join(f"{k} {v}" for k, v in rounded.items()))
