"""The node's exceptions.

An attempt at grading that raises one of these ends in one of two ways:

- `Failed`: the node or one of its libraries has a defect. The attempt is charged; after the last
  one the revision waits for an operator.
- `Unavailable`: a service that the node depends on does not respond. The attempt is repeated and
  not charged.

A study that cannot be graded is a result (`core.results.NotGradedStudy`), not an error. Messages
never contain patient data: no element values other than UIDs, numbers and codes.
"""

from __future__ import annotations

from core.text import printable_lines


class EpvsError(Exception):
    """Base class of the exceptions that the node raises deliberately.

    Parameters
    ----------
    message : str
        What happened, for the operator; no patient data.
    remedy : str
        What the operator can do about it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        # Messages quote settings, file names and what peers answered.
        return printable_lines(f"{self.message} {self.remedy}".strip())


class ConfigurationError(EpvsError):
    """A setting is missing, malformed or contradicts another one."""


class Failed(EpvsError):
    """The node or one of its libraries has a defect; the attempt is charged.

    Parameters
    ----------
    code : str
        Short kebab-case code, stored in SQL, e.g. ``"model-answer-invalid"``.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.code = code


class Unavailable(EpvsError):
    """A service that the node depends on does not respond; repeated, the attempt is not charged.

    Parameters
    ----------
    service : str
        ``"triton"``, ``"database"``, ``"broker"``, ``"disk"`` or the name of a destination.
    """

    def __init__(self, service: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.service = service
