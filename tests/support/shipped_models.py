"""The shipped models, as their descriptions state them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from core.model_versions import newest_version
from tests.support.paths import MODELS

if TYPE_CHECKING:
    from pathlib import Path


def newest_folder(name: str) -> Path:
    """Return the folder of a shipped model's highest version."""
    return MODELS / name / newest_version(MODELS / name)


def newest_description(name: str) -> dict[str, Any]:
    """Return ``model.json`` of a shipped model's highest version."""
    description: dict[str, Any] = json.loads((newest_folder(name) / "model.json").read_text())
    return description
