"""Admission: who may open an association with the node, and what a refused caller is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from core.settings import Settings
    from receiver.negotiation import Request


@dataclass(frozen=True, slots=True)
class Refusal:
    """An A-ASSOCIATE-RJ: result, source and diagnostic of PS3.8 table 9-21, and a reason.

    The reason is for the audit trail; the caller sees the three numbers only.
    """

    result: int
    source: int
    diagnostic: int
    reason: str


PROTOCOL_VERSION_NOT_SUPPORTED: Final = Refusal(0x01, 0x02, 0x02, "protocol-version-not-supported")
APPLICATION_CONTEXT_NOT_SUPPORTED: Final = Refusal(
    0x01, 0x01, 0x02, "application-context-not-supported"
)
CALLER_NOT_ADMITTED: Final = Refusal(0x01, 0x01, 0x03, "caller-not-on-allow-list")
CALLER_NOT_PROVEN: Final = Refusal(0x01, 0x01, 0x03, "caller-without-its-certificate")
CALLED_AE_NOT_RECOGNISED: Final = Refusal(0x01, 0x01, 0x07, "called-ae-not-recognised")
DISK_BELOW_RESERVE: Final = Refusal(0x02, 0x03, 0x01, "disk-below-reserve")
"""Transient (temporary congestion): the sender keeps the study and tries again."""
TOO_MANY_ASSOCIATIONS: Final = Refusal(0x02, 0x03, 0x02, "too-many-associations")
"""Transient (local limit exceeded)."""
TOO_MANY_OF_CALLER: Final = Refusal(0x02, 0x03, 0x02, "too-many-of-caller")
REMAINING_RESERVED: Final = Refusal(0x02, 0x03, 0x02, "remaining-reserved")
"""The last associations are kept for callers that have none."""


def refusal(
    settings: Settings,
    request: Request,
    *,
    peer_address: str,
    certificate_names: frozenset[str],
    has_room: bool,
    n_open: int,
    n_of_caller: int,
) -> Refusal | None:
    """Return why an association is refused, or None if it is admitted.

    Parameters
    ----------
    settings : Settings
        `caller_rules`, `ae_title` and the limits on associations decide.
    request : Request
    peer_address : str
        Numeric IPv4 or IPv6 address of the caller.
    certificate_names : frozenset of str
        Names in the caller's certificate, in lower case; empty without TLS.
    has_room : bool
        Whether the free space of the spool is above its reserve.
    n_open : int
        Associations that are open already.
    n_of_caller : int
        Those of them that are this caller's.
    """
    if not request.has_known_version:
        return PROTOCOL_VERSION_NOT_SUPPORTED
    if not request.has_known_application_context:
        return APPLICATION_CONTEXT_NOT_SUPPORTED
    listed = [r for r in settings.caller_rules if r.lists(request.calling_ae, peer_address)]
    if not listed:
        return CALLER_NOT_ADMITTED
    if not any(rule.is_proven_by(certificate_names) for rule in listed):
        return CALLER_NOT_PROVEN
    if request.called_ae != settings.ae_title:
        return CALLED_AE_NOT_RECOGNISED
    if not has_room:
        return DISK_BELOW_RESERVE
    return _limit_reached(settings, n_open, n_of_caller)


def _limit_reached(settings: Settings, n_open: int, n_of_caller: int) -> Refusal | None:
    n_left = settings.max_associations - n_open
    if n_left <= 0:
        return TOO_MANY_ASSOCIATIONS
    if n_of_caller >= settings.caller_quota:
        return TOO_MANY_OF_CALLER
    if n_of_caller and n_left <= settings.reserved_associations:
        return REMAINING_RESERVED
    return None
