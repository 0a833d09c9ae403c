"""Receiving: one C-STORE from data set bytes to status; success means file and row are durable."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from core.errors import Unavailable
from core.records import ReceivedInstance
from db.intake import Intake
from receiver.header import Header, is_valid_uid, read_header
from receiver.status import Refused, Status

if TYPE_CHECKING:
    from receiver.ledger import Ledger
    from receiver.spool import Spool, StoredFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ: what its command says, over which context it came, and the data set."""

    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax: str
    transfer_syntax_uid: str
    data_set: bytes
    calling_ae: str
    peer_address: str


class Storage:
    """Stores instances.

    Parameters
    ----------
    spool : Spool
    ledger : Ledger
    """

    def __init__(self, spool: Spool, ledger: Ledger) -> None:
        self._spool = spool
        self._ledger = ledger

    def store(self, request: StoreRequest) -> None:
        """Return once the instance is durable.

        Raises
        ------
        Refused
            With the status to answer; an audit row says so too.
        """
        try:
            self._store(request)
        except Refused as refused:
            self._ledger.note(
                "instance-refused",
                status=f"0x{refused.status:04X}",
                reason=refused.message,
                sop_class_uid=_quotable(request.sop_class_uid),
                sop_instance_uid=_quotable(request.sop_instance_uid),
                calling_ae=request.calling_ae,
                peer_address=request.peer_address,
            )
            raise

    def _store(self, request: StoreRequest) -> None:
        try:
            header = _checked_header(request)
            stored = self._write(request)
            intake = self._ledger.record(_received(request, header, stored))
        except Refused:
            raise
        except OSError as error:
            raise Refused(Status.OUT_OF_RESOURCES, f"Disk error {error.errno}.") from error
        except Unavailable as error:
            logger.exception("database-unavailable")
            raise Refused(Status.OUT_OF_RESOURCES, "The database does not answer.") from error
        except Exception as error:  # a fault of ours, whatever it is, must end as a status
            logger.exception("store-failed")
            raise Refused(Status.PROCESSING_FAILURE, "Internal error; see the log.") from error
        if intake is Intake.OWN:
            stored.path.unlink(missing_ok=True)  # it has no row, and is kept elsewhere
        logger.debug(
            "%s sop_instance_uid=%s sha256=%s", intake.value, header.sop_instance_uid, stored.sha256
        )

    def _write(self, request: StoreRequest) -> StoredFile:
        if not self._spool.has_room(len(request.data_set)):
            raise Refused(Status.OUT_OF_RESOURCES, "The disk is at its reserve.")
        with self._spool.create(
            request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid
        ) as file:
            file.write(request.data_set)
            return file.commit()


def _checked_header(request: StoreRequest) -> Header:
    if not is_valid_uid(request.sop_instance_uid):
        raise Refused(Status.UID_INVALID, "The Affected SOP Instance UID is not a UID.")
    if request.sop_class_uid != request.abstract_syntax:
        raise Refused(Status.SOP_CLASS_NOT_SUPPORTED, "The SOP class is not that of the context.")
    header = read_header(request.data_set, request.transfer_syntax_uid)
    if header.sop_class_uid != request.sop_class_uid:
        raise Refused(Status.DATA_SET_MISMATCH, "SOP Class UID differs from the command's.")
    if header.sop_instance_uid != request.sop_instance_uid:
        raise Refused(Status.DATA_SET_MISMATCH, "SOP Instance UID differs from the command's.")
    return header


def _received(request: StoreRequest, header: Header, stored: StoredFile) -> ReceivedInstance:
    return ReceivedInstance(
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=request.transfer_syntax_uid,
        path=stored.path,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        calling_ae=request.calling_ae,
        peer_address=request.peer_address,
        received_at=datetime.now(UTC),
        patient_id=header.patient_id,
        accession_number=header.accession_number,
        study_date=header.study_date,
        modality=header.modality,
    )


def _quotable(uid: str) -> str:
    """`uid` for the audit; what is not a UID could be anything, a patient's name included."""
    return uid if is_valid_uid(uid) else "invalid"
