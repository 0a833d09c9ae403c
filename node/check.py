"""The outcome of one check, as ``epvs-node doctor`` shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """Result of one check: whether the dependency works, details, and the remedy if not."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    warning: bool = False
    """Works, but an operator should look at it: the remedy is shown, and nothing has failed."""

    def as_dict(self) -> dict[str, Any]:
        """Return the check in the form of the JSON output."""
        return asdict(self)
