"""A work folder belongs to one cohort: answers about another must not be taken for its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def claim(work: Path, cohort: dict[str, Any]) -> None:
    """Note in a work folder which cohort it is for.

    Parameters
    ----------
    work : Path
    cohort : dict
        Of `describe_cohort`.

    Raises
    ------
    ConfigurationError
        It is for another.
    """
    noted = work / "evaluated.json"
    if noted.is_file() and json.loads(noted.read_text(encoding="utf-8")) != cohort:
        raise ConfigurationError(f"{work} belongs to another cohort.", "Name another --work.")
    work.mkdir(parents=True, exist_ok=True)
    noted.write_text(json.dumps(cohort) + "\n", encoding="utf-8")
