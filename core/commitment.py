"""Storage commitment reports: the content of an N-EVENT-REPORT (PS3.4 annex J.3.3).

An archive sends its report on the association that requested the commitment (the worker's) or on
one that it opens itself (to the receiver); both decode it here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydicom.dataset import Dataset

SOP_CLASS_UID: Final = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model."""
SOP_INSTANCE_UID: Final = "1.2.840.10008.1.20.1.1"
"""Well-known SOP Instance UID of the Storage Commitment Push Model."""

_SUCCESS: Final = 0x0000
_PROCESSING_FAILURE: Final = 0x0110
_INVALID_ARGUMENT: Final = 0x0115
"""DIMSE statuses (PS3.7 C.5)."""

log = logging.getLogger(__name__)


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
        Failure Reason (0008,1197) by SOP Instance UID; processing failure where none is given.
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
                    item.get("FailureReason") or _PROCESSING_FAILURE
                )
                for item in failed
            },
        )
    except AttributeError:
        raise ValueError("an item of the report has no Referenced SOP Instance UID") from None


def respond_to_report(
    event_information: Dataset, settle: Callable[[CommitmentReport], bool]
) -> int:
    """Read a report, have it recorded, and return the DIMSE status of the response.

    Parameters
    ----------
    event_information : Dataset
        Of the N-EVENT-REPORT.
    settle : callable
        Records the report; False if no request has its Transaction UID.

    Returns
    -------
    int
        Success; invalid argument for a malformed report or an unknown transaction; processing
        failure while the database is unavailable, so that the archive sends the report again.
    """
    try:
        report = read_commitment_report(event_information)
        known = settle(report)
    except ValueError as error:
        log.warning("commitment report refused: %s", error)
        return _INVALID_ARGUMENT
    except Unavailable as error:
        log.warning("commitment report not recorded: %s", error)
        return _PROCESSING_FAILURE
    if not known:
        log.warning("commitment report for an unknown transaction")
        return _INVALID_ARGUMENT
    log.info(
        "commitment report transaction=%s committed=%d failed=%d",
        report.transaction_uid,
        len(report.committed),
        len(report.failed),
    )
    return _SUCCESS
