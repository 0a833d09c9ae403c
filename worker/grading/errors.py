"""The exception that a pipeline stage raises for a study that cannot be graded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import EpvsError

if TYPE_CHECKING:
    from core.reasons import Reason


class NotGradable(EpvsError):
    """The study cannot be graded, for a reason that no retry will change.

    Parameters
    ----------
    reason : Reason
    detail : str
        The figures behind the reason, e.g. ``"gap of 7.5 mm after slice 11 (others 2.5 mm)"``.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail
