"""Atomic file writes, so that an interrupted command never leaves a truncated file behind."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it replaces `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.part")
    yield temporary
    temporary.replace(target)


def write_arrays(target: Path, **arrays: Any) -> None:
    """Write named arrays as a compressed ``.npz`` file."""
    with atomic_write(target) as path, path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def write_json(target: Path, content: Any) -> None:
    """Write a value as JSON."""
    with atomic_write(target) as path:
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")
