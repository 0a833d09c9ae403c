"""DIMSE statuses of C-STORE and N-ACTION responses, and what they mean for a delivery."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Response(Enum):
    """Meaning of a peer's response, or of its absence."""

    STORED = auto()
    """Success, possibly with a warning."""
    TRY_LATER = auto()
    """Not stored, for a reason that may pass."""
    REFUSED = auto()
    """Not stored, and sending the same bytes again would not change that."""
    UNKNOWN = auto()
    """No response, or one that says that the instance exists: it may be stored or not."""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Result of one C-STORE; `status` is None where no response came."""

    sop_instance_uid: str
    response: Response
    status: int | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CommitmentResult:
    """Result of one N-ACTION that requests storage commitment.

    `response` is ``STORED`` if the request was accepted and a report will follow, ``REFUSED`` if
    the peer offers no storage commitment, else ``TRY_LATER`` or ``UNKNOWN``.
    """

    response: Response
    status: int | None
    detail: str


def interpret_store(status: int) -> Response:
    """Meaning of a C-STORE status (PS3.4 B.2.3, PS3.7 annex C)."""
    if _is_success_or_warning(status):
        return Response.STORED
    if is_out_of_resources(status) or status == 0x0110:
        return Response.TRY_LATER  # out of resources; processing failure
    if status == 0x0111:
        return Response.UNKNOWN  # duplicate SOP instance: stored by an earlier attempt, or not
    return Response.REFUSED


def is_out_of_resources(status: int | None) -> bool:
    """Whether a C-STORE was refused for want of resources, whatever was sent (PS3.4 B.2.3)."""
    return status is not None and (status & 0xFF00 == 0xA700 or status == 0x0213)


def interpret_action(status: int) -> Response:
    """Meaning of an N-ACTION status (PS3.7 10.1.4.1.10)."""
    if _is_success_or_warning(status):
        return Response.STORED
    # No such SOP class, instance or action; not authorised; unrecognised operation.
    if status in (0x0112, 0x0118, 0x0122, 0x0123, 0x0124, 0x0211):
        return Response.REFUSED
    return Response.TRY_LATER


def _is_success_or_warning(status: int) -> bool:
    return status in (0x0000, 0x0001, 0x0107, 0x0116) or status & 0xF000 == 0xB000
