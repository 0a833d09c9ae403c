"""What can go wrong, as the rest of the node and the operator see it.

Three families, because they lead to three different ends of a study:

- `Rejected`: the study cannot be graded. A result, not an error; never retried.
- `Failed`: something of ours broke. An attempt is charged; after the last one a person is needed.
- `Unavailable`: a service that we depend on does not answer. Retried, no attempt charged.

Messages never carry patient data: no element values beyond UIDs, numbers and codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.reasons import Reason
    from core.results import SeriesVerdict


class EpvsError(Exception):
    """Base of everything that the node raises on purpose.

    Parameters
    ----------
    message : str
        What happened, in words an operator understands; no patient data.
    remedy : str
        What to do about it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class ConfigurationError(EpvsError):
    """A setting is missing, malformed or contradicts another."""


class Rejected(EpvsError):
    """The study cannot be graded, for a reason that no retry will change.

    Parameters
    ----------
    reason : Reason
    detail : str
        The figures behind the reason, e.g. ``"gap of 7.5 mm after slice 11 (others 2.5 mm)"``.
    verdicts : tuple of SeriesVerdict
        One for each series of the study, as far as they were reached.
    """

    def __init__(
        self, reason: Reason, detail: str = "", verdicts: tuple[SeriesVerdict, ...] = ()
    ) -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail
        self.verdicts = verdicts


class Failed(EpvsError):
    """Something of ours broke; an attempt is charged.

    Parameters
    ----------
    code : str
        Short kebab-case code kept in SQL, e.g. ``"model-answer-invalid"``.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.code = code


class Unavailable(EpvsError):
    """A service that the node depends on does not answer; retried, no attempt charged.

    Parameters
    ----------
    service : str
        ``"triton"``, ``"database"``, ``"broker"``, ``"disk"`` or a destination's name.
    """

    def __init__(self, service: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.service = service
