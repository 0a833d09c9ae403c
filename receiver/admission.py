"""Receiving: who may associate with the node, and what a refused caller is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from core.settings import Settings


@dataclass(frozen=True, slots=True)
class Refusal:
    """An A-ASSOCIATE-RJ: result, source and diagnostic of PS3.8 table 9-21, and a reason.

    The reason is for the audit; the caller sees the three numbers only.
    """

    result: int
    source: int
    diagnostic: int
    reason: str


CALLER_NOT_ADMITTED: Final = Refusal(0x01, 0x01, 0x03, "caller-not-on-allow-list")
CALLER_NOT_PROVEN: Final = Refusal(0x01, 0x01, 0x03, "caller-without-its-certificate")
CALLED_AE_NOT_OURS: Final = Refusal(0x01, 0x01, 0x07, "called-ae-not-recognised")
DISK_BELOW_RESERVE: Final = Refusal(0x02, 0x03, 0x01, "disk-below-reserve")
"""Transient (temporary congestion): the sender keeps the study and tries again."""
TOO_MANY_ASSOCIATIONS: Final = Refusal(0x02, 0x03, 0x02, "too-many-associations")
"""Transient (local limit exceeded)."""


def refusal(
    settings: Settings,
    *,
    calling_ae: str,
    called_ae: str,
    peer_address: str,
    certificate_names: frozenset[str],
    has_room: bool,
    n_open: int,
) -> Refusal | None:
    """Why this association is not admitted, or None where it is.

    Parameters
    ----------
    settings : Settings
        `caller_rules`, `ae_title` and `max_associations` decide.
    calling_ae, called_ae : str
        Of the A-ASSOCIATE-RQ.
    peer_address : str
        Numeric IPv4 or IPv6 address that the connection comes from.
    certificate_names : frozenset of str
        What the caller's certificate carries, in lower case; empty without TLS.
    has_room : bool
        Whether the spool is above its reserve.
    n_open : int
        Associations that are open already.
    """
    listed = [rule for rule in settings.caller_rules if rule.lists(calling_ae, peer_address)]
    if not listed:
        return CALLER_NOT_ADMITTED
    if not any(rule.is_proven_by(certificate_names) for rule in listed):
        return CALLER_NOT_PROVEN
    if called_ae.strip() != settings.ae_title:
        return CALLED_AE_NOT_OURS
    if not has_room:
        return DISK_BELOW_RESERVE
    if n_open >= settings.max_associations:
        return TOO_MANY_ASSOCIATIONS
    return None
