"""Storage commitment reports: the content of an N-EVENT-REPORT (PS3.4 annex J.3.3).

An archive sends its report on the association that requested the commitment (the worker's) or on
one that it opens itself (to the receiver); both decode it here.
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
"""Well-known SOP Instance UID of the Storage Commitment Push Model."""

_UNKNOWN_REASON: Final = 0x0110
"""Processing failure; stands for a failed instance without a Failure Reason."""


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """SOP instances that an archive has committed to store, and those that it has not.

    Attributes
    ----------
    transaction_uid : str
        Transaction UID of the request.
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
        The Transaction UID or a SOP Instance UID is missing; the message contains no values.
    """
    transaction_uid = str(event_information.get("TransactionUID") or "")
    committed = event_information.get("ReferencedSOPSequence") or []
    failed = event_information.get("FailedSOPSequence") or []
    if not transaction_uid:
        raise ValueError("the report has no Transaction UID")
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
        raise ValueError("an item of the report has no Referenced SOP Instance UID") from None
