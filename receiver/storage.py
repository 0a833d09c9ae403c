"""One C-STORE from its first byte to its status; success means that file and row are durable."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from core.errors import Unavailable
from core.priorities import priority_of
from core.studies import ReceivedInstance
from db.receiving.intake import Intake
from receiver.header import Header, is_valid_uid, read_header
from receiver.status import Refused, Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from core.priorities import PriorityRule
    from receiver.instance_registry import InstanceRegistry
    from receiver.refusals import Refusals
    from receiver.spool import Spool, SpoolFile, StoredFile

logger = logging.getLogger(__name__)

_ROOM_CHECK_BYTES: Final = 16 * 1024 * 1024
"""Bytes written between two checks of free space: the length of a data set is not known ahead."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ: values of its command, its presentation context and its sender."""

    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax: str
    transfer_syntax_uid: str
    calling_ae: str
    peer_address: str


class Storage:
    """Stores instances.

    Parameters
    ----------
    spool : Spool
    registry : InstanceRegistry
    refusals : Refusals
    max_instance_bytes : int
        A longer data set is refused.
    priorities : sequence of PriorityRule
        Give each instance its priority.
    """

    def __init__(
        self,
        spool: Spool,
        registry: InstanceRegistry,
        refusals: Refusals,
        max_instance_bytes: int,
        priorities: Sequence[PriorityRule] = (),
    ) -> None:
        self.spool = spool
        self.registry = registry
        self.refusals = refusals
        self.max_instance_bytes = max_instance_bytes
        self.priorities = priorities

    def begin(self, request: StoreRequest) -> Incoming:
        """Begin to store an instance; use it in a ``with`` block."""
        return Incoming(self, request)


class Incoming:
    """An instance being received; leaving the ``with`` block before `finish` removes it.

    A refusal is raised by `finish` only: no response can be sent before the end of a data set, so
    the rest of a refused instance is read and dropped.

    Parameters
    ----------
    storage : Storage
    request : StoreRequest
    """

    def __init__(self, storage: Storage, request: StoreRequest) -> None:
        self._storage = storage
        self._request = request
        self._size = 0
        self._room_checked_at = 0
        self._file: SpoolFile | None = None
        self._refusal: Refused | None = None
        try:
            self._file = self._open()
        except Exception as error:  # noqa: BLE001 - every error must end as a status
            self._refuse(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove an instance that was not finished."""
        if self._file is not None:
            self._file.discard()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next part of the data set; never raises."""
        if self._file is None:
            return
        try:
            self._append(self._file, data)
        except Exception as error:  # noqa: BLE001 - every error must end as a status
            self._refuse(error)

    def finish(self) -> None:
        """Return once the instance is durable.

        Raises
        ------
        Refused
            With the status of the response; it is counted.
        """
        if self._file is not None:
            try:
                self._complete(self._file)
            except Exception as error:  # noqa: BLE001 - every error must end as a status
                self._refuse(error)
        if self._refusal is not None:
            self._count(self._refusal)
            raise self._refusal

    def _open(self) -> SpoolFile:
        request = self._request
        if not is_valid_uid(request.sop_instance_uid):
            raise Refused(Status.UID_INVALID, "The Affected SOP Instance UID is not a UID.")
        if request.sop_class_uid != request.abstract_syntax:
            raise Refused(
                Status.SOP_CLASS_NOT_SUPPORTED, "The SOP class is not that of the context."
            )
        self._check_room()
        return self._storage.spool.create(
            request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid
        )

    def _append(self, file: SpoolFile, data: bytes | memoryview) -> None:
        self._size += len(data)
        if self._size > self._storage.max_instance_bytes:
            raise Refused(
                Status.TOO_LARGE, f"Over {self._storage.max_instance_bytes} bytes in one instance."
            )
        if self._size - self._room_checked_at > _ROOM_CHECK_BYTES:
            self._check_room()
        file.write(data)

    def _check_room(self) -> None:
        if not self._storage.spool.has_room():
            raise Refused(Status.OUT_OF_RESOURCES, "The disk is at its reserve.")
        self._room_checked_at = self._size

    def _complete(self, file: SpoolFile) -> None:
        header = self._checked_header(file)
        stored = file.commit()
        intake = self._storage.registry.record(self._received(header, stored))
        if intake is Intake.OWN:
            stored.path.unlink(missing_ok=True)  # it has no row; the report files are kept
        elif intake is Intake.REMOVING or not stored.path.exists():
            # Its earlier file was set to be removed, and was while this one was being recorded.
            raise Refused(Status.OUT_OF_RESOURCES, "Its earlier file is being removed.")
        logger.debug(
            "%s sop_instance_uid=%s sha256=%s", intake.value, header.sop_instance_uid, stored.sha256
        )

    def _checked_header(self, file: SpoolFile) -> Header:
        file.flush()
        header = read_header(file.read, self._size, self._request.transfer_syntax_uid)
        if header.sop_class_uid != self._request.sop_class_uid:
            raise Refused(Status.DATA_SET_MISMATCH, "SOP Class UID differs from the command's.")
        if header.sop_instance_uid != self._request.sop_instance_uid:
            raise Refused(Status.DATA_SET_MISMATCH, "SOP Instance UID differs from the command's.")
        return header

    def _refuse(self, error: Exception) -> None:
        self._refusal = _as_refusal(error)
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _count(self, refusal: Refused) -> None:
        request = self._request
        self._storage.refusals.count(
            "instance-refused",
            reason=refusal.message,
            calling_ae=request.calling_ae,
            peer_address=request.peer_address,
            status=f"0x{refusal.status:04X}",
            sop_class_uid=_quotable(request.sop_class_uid),
            sop_instance_uid=_quotable(request.sop_instance_uid),
        )

    def _received(self, header: Header, stored: StoredFile) -> ReceivedInstance:
        return ReceivedInstance(
            study_uid=header.study_uid,
            series_uid=header.series_uid,
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid=self._request.transfer_syntax_uid,
            path=stored.path,
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            calling_ae=self._request.calling_ae,
            peer_address=self._request.peer_address,
            received_at=datetime.now(UTC),
            patient_id=header.patient_id,
            issuer_of_patient_id=header.issuer_of_patient_id,
            accession_number=header.accession_number,
            study_date=header.study_date,
            modality=header.modality,
            priority=priority_of(
                self._storage.priorities,
                calling_ae=self._request.calling_ae,
                requested=header.requested_priority,
                station=header.station_name,
            ),
        )


def _as_refusal(error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    if isinstance(error, OSError):
        return Refused(Status.OUT_OF_RESOURCES, f"Disk error {error.errno}.")
    if isinstance(error, Unavailable):
        logger.error("database-unavailable", exc_info=error)
        return Refused(Status.OUT_OF_RESOURCES, "The database does not answer.")
    logger.error("store-failed", exc_info=error)
    return Refused(Status.PROCESSING_FAILURE, "Internal error; see the log.")


def _quotable(uid: str) -> str:
    """`uid` for the audit trail; an invalid one may be any text, even a patient's name."""
    return uid if is_valid_uid(uid) else "invalid"
