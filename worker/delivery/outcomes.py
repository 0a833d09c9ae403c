"""Delivery: what one attempt can come to, whatever kind of destination it went to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivered:
    """Everything is stored, which `proof` shows, e.g. ``"store-status"`` or ``"c-find"``.

    `statuses` holds the C-STORE status of each SOP Instance UID.
    """

    proof: str
    statuses: dict[str, int]


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything was taken; that it is kept is not shown yet.

    Attributes
    ----------
    statuses : dict
        C-STORE status of each SOP Instance UID.
    asked : bool
        Whether an answer was missing and a C-FIND took its place.
    """

    statuses: dict[str, int]
    asked: bool = False


@dataclass(frozen=True, slots=True)
class AwaitingReport:
    """Storage commitment was asked for; the report comes when it comes."""

    transaction_uid: str


@dataclass(frozen=True, slots=True)
class Postponed:
    """Not everything is known to be stored; a later attempt may change that."""

    error: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """No later attempt will change this: a person has to."""

    error: str
    status: int | None = None


Outcome = Delivered | Stored | AwaitingReport | Postponed | Parked
