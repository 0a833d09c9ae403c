"""Storage commitment: what an N-EVENT-REPORT says (PS3.4 annex J.3.3), wherever it arrives.

An archive reports on the association that asked for the commitment (the worker's) or on one that
it opens itself (the receiver's); both read it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom.dataset import Dataset

SOP_CLASS_UID: Final = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model."""
SOP_INSTANCE_UID: Final = "1.2.840.10008.1.20.1.1"
"""Its well-known instance."""

_UNKNOWN_REASON: Final = 0x0110
"""Processing failure: also said of an instance that failed without a reason."""


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """For which SOP instances an archive takes responsibility, and for which not and why.

    Attributes
    ----------
    transaction_uid : str
        Of the request that it answers.
    committed : frozenset of str
        SOP Instance UIDs.
    failed : mapping
        Failure Reason (0008,1197) of each SOP Instance UID.
    """

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int]


def read_commitment_report(event_information: Dataset) -> CommitmentReport:
    """Read the Event Information of an N-EVENT-REPORT (PS3.4 table J.3-2).

    Raises
    ------
    ValueError
        It names no transaction, or refers to nothing; the message carries no values.
    """
    transaction_uid = str(event_information.get("TransactionUID") or "")
    committed = event_information.get("ReferencedSOPSequence") or []
    failed = event_information.get("FailedSOPSequence") or []
    if not transaction_uid:
        raise ValueError("the report names no transaction")
    try:
        return CommitmentReport(
            transaction_uid,
            frozenset(str(item.ReferencedSOPInstanceUID) for item in committed),
            {
                str(item.ReferencedSOPInstanceUID): int(
                    item.get("FailureReason") or _UNKNOWN_REASON
                )
                for item in failed
            },
        )
    except AttributeError:
        raise ValueError("an item of the report refers to nothing") from None
