"""Storage commitment reports: the content of an N-EVENT-REPORT (PS3.4 annex J.3.3).

An archive sends its report on the association that requested the commitment (the worker's) or on
one that it opens itself (to the receiver); both decode it here. Who may report on a destination is
decided here too: a report says that the archive keeps the objects for good.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from core.callers import addresses_of, numeric_address
from core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydicom.dataset import Dataset

    from core.destinations import DicomDestination

SOP_CLASS_UID: Final = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model."""
SOP_INSTANCE_UID: Final = "1.2.840.10008.1.20.1.1"
"""Well-known SOP Instance UID of the Storage Commitment Push Model."""

_SUCCESS: Final = 0x0000
_PROCESSING_FAILURE: Final = 0x0110
_INVALID_ARGUMENT: Final = 0x0115
_NOT_AUTHORISED: Final = 0x0124
"""DIMSE statuses (PS3.7 annex C)."""

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


class ReportRefusal(StrEnum):
    """Why a report is refused; a reason code of the view ``refusals``."""

    MALFORMED = "malformed-report"
    UNKNOWN_TRANSACTION = "unknown-transaction"
    NOT_AUTHORISED = "reporter-not-authorised"


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports, as far as the association shows it.

    Attributes
    ----------
    ae_title : str
    address : str
        Numeric; of a destination that the node called, its host.
    certificate_names : frozenset of str
        Names in its certificate, in lower case; empty without TLS.
    called : str
        Name of the destination, if the node opened the association itself.
    """

    ae_title: str
    address: str
    certificate_names: frozenset[str] = frozenset()
    called: str = ""

    @classmethod
    def called_by_node(cls, destination: DicomDestination) -> Reporter:
        """Return the destination that the node has opened an association to.

        Over TLS its certificate has been found to carry its name.
        """
        names = frozenset({destination.certificate_name.lower()} if destination.tls else ())
        return cls(destination.ae_title, destination.host, names, destination.name)

    def may_report_for(self, destination: DicomDestination) -> bool:
        """Whether its reports on the objects of `destination` are accepted.

        On an association that the node opened, those on the destination called; otherwise those of
        the destination's AE title at its address or, if it is reached over TLS, of its certificate,
        and those of the reporters that the destination lists.

        Raises
        ------
        Unavailable
            The host name of the destination cannot be resolved now.
        """
        if self.called:
            return self.called == destination.name
        if any(
            rule.lists(self.ae_title, self.address) and rule.is_proven_by(self.certificate_names)
            for rule in destination.reporters
        ):
            return True
        if destination.tls:
            return destination.certificate_name.lower() in self.certificate_names
        return self.ae_title.strip() == destination.ae_title.strip() and (
            numeric_address(self.address) in addresses_of(destination.host)
        )


def read_commitment_report(event_information: Dataset) -> CommitmentReport:
    """Read the Event Information of an N-EVENT-REPORT (PS3.4 table J.3-2).

    Raises
    ------
    ValueError
        The Transaction UID or a SOP Instance UID is missing, or the data set is damaged; the
        message contains no values.
    """
    try:
        committed = event_information.get("ReferencedSOPSequence") or []
        failed = event_information.get("FailedSOPSequence") or []
        report = CommitmentReport(
            str(event_information.get("TransactionUID") or ""),
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
    except Exception:  # noqa: BLE001 - pydicom decodes values on access, and may raise anything
        raise ValueError("the report cannot be decoded") from None
    if not report.transaction_uid:
        raise ValueError("the report has no Transaction UID")
    return report


def respond_to_report(
    event_information: Dataset,
    settle: Callable[[CommitmentReport], ReportRefusal | None],
    refuse: Callable[[ReportRefusal], None],
) -> int:
    """Read a report, have it recorded, and return the DIMSE status of the response.

    Parameters
    ----------
    event_information : Dataset
        Of the N-EVENT-REPORT.
    settle : callable
        Records the report, or returns why it is refused.
    refuse : callable
        Counts a report that is refused.

    Returns
    -------
    int
        Success; invalid argument for a malformed report or an unknown transaction; not authorised
        for a reporter that is not the destination; processing failure while the database or the
        name server is unavailable, so that the archive sends the report again.
    """
    try:
        report = read_commitment_report(event_information)
    except ValueError as error:
        log.warning("commitment report refused: %s", error)
        refuse(ReportRefusal.MALFORMED)
        return _INVALID_ARGUMENT
    try:
        refusal = settle(report)
    except Unavailable as error:
        log.warning("commitment report not recorded: %s", error)
        return _PROCESSING_FAILURE
    if refusal is not None:
        refuse(refusal)
        is_foreign = refusal is ReportRefusal.NOT_AUTHORISED
        return _NOT_AUTHORISED if is_foreign else _INVALID_ARGUMENT
    log.info(
        "commitment report transaction=%s committed=%d failed=%d",
        report.transaction_uid,
        len(report.committed),
        len(report.failed),
    )
    return _SUCCESS
