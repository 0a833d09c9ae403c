"""Delivery: the possible outcomes of one attempt, for every kind of destination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from db.enums import Proof


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has everything, as `proof` shows.

    `statuses` holds the C-STORE status by SOP Instance UID; it is empty for HL7.
    """

    proof: Proof
    statuses: dict[str, int]


@dataclass(frozen=True, slots=True)
class Stored:
    """Every C-STORE succeeded; the proof that the archive keeps the objects is still missing.

    Attributes
    ----------
    statuses : dict
        C-STORE status by SOP Instance UID.
    queried : bool
        Whether a C-FIND replaced a missing or ambiguous response.
    """

    statuses: dict[str, int]
    queried: bool = False


@dataclass(frozen=True, slots=True)
class AwaitingReport:
    """Storage commitment was requested; the report has not arrived yet."""

    transaction_uid: str


@dataclass(frozen=True, slots=True)
class Postponed:
    """The delivery is not complete; a later attempt may succeed.

    Attributes
    ----------
    error : str
    status : int, optional
        DIMSE status.
    available : bool
        False if it could not be reached, or had no resources: others would fare no better.
    """

    error: str
    status: int | None = None
    available: bool = True


@dataclass(frozen=True, slots=True)
class Parked:
    """The delivery is not complete, and only an operator can change that."""

    error: str
    status: int | None = None


Outcome = Delivered | Stored | AwaitingReport | Postponed | Parked
