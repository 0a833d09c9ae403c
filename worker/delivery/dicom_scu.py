"""Delivery, network half: the one module that speaks DICOM as a service class user.

C-STORE of kept files (PS3.4 annex B), a C-FIND at IMAGE level (PS3.4 annex C) that asks whether
they arrived, the N-ACTION that asks for storage commitment (PS3.4 annex J), and C-ECHO. What the
answers mean for a delivery is `worker.delivery.attempt`'s matter.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made on import

from core import commitment
from core.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

    from core.destinations import DicomDestination
    from core.tls import Identity

# Files go out byte for byte as they were kept; the default decodes and encodes them anew.
_config.STORE_SEND_CHUNKED_DATASET = True

STUDY_ROOT_FIND: Final = UID("1.2.840.10008.5.1.4.1.2.2.1")
"""Study Root Query/Retrieve Information Model - FIND (PS3.4 C.6.2.3)."""
_REQUEST_COMMITMENT: Final = 1
"""Action Type ID (PS3.4 table J.3-1)."""
_REPORT_ON_SAME_ASSOCIATION_S: Final = 1.0
_CONNECTION_TIMEOUT_S: Final = 10.0
_Handler = tuple[evt.EventType, Callable[..., Any]]
_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

log = logging.getLogger(__name__)


class Outgoing(Protocol):
    """What sending needs to know of a Part 10 file."""

    @property
    def sop_class_uid(self) -> str: ...  # noqa: D102 - the names say it
    @property
    def sop_instance_uid(self) -> str: ...  # noqa: D102
    @property
    def transfer_syntax_uid(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> Path: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class OutgoingFile:
    """A Part 10 file to send."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path


class Answer(Enum):
    """What a C-STORE response says about the object."""

    STORED = auto()
    TRY_LATER = auto()
    """Not stored, for a reason that may pass."""
    REFUSED = auto()
    """Not stored, and the same bytes never will be."""
    UNKNOWN = auto()
    """No answer, or one that says that the instance exists: it may be stored or not."""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The answer for one object; `status` is None where no response came."""

    sop_instance_uid: str
    answer: Answer
    status: int | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CommitmentAnswer:
    """The answer to an N-ACTION.

    `answer` is ``STORED`` where the request was taken and a report will follow, ``REFUSED`` where
    storage commitment is not to be had there, else ``TRY_LATER`` or ``UNKNOWN``.
    """

    answer: Answer
    status: int | None
    detail: str


def interpret(status: int) -> Answer:
    """Meaning of a C-STORE status (PS3.4 B.2.3, PS3.7 annex C)."""
    if status in (0x0000, 0x0001, 0x0107, 0x0116) or status & 0xF000 == 0xB000:
        return Answer.STORED  # with a warning, where it is not 0x0000
    if status & 0xFF00 == 0xA700 or status in (0x0110, 0x0213):
        return Answer.TRY_LATER  # out of resources; processing failure; resource limitation
    if status == 0x0111:
        return Answer.UNKNOWN  # duplicate SOP instance: ours from an earlier attempt, or not
    return Answer.REFUSED


class StorageUser:
    """Talks to one destination.

    Parameters
    ----------
    destination : DicomDestination
    calling_ae : str
    timeout_s : float
        For each answer that is waited for, and for each piece that the peer must take off the
        network.
    identity : Identity or None
        What the node proves itself with where `destination` is to be reached over TLS.

    Raises
    ------
    ConfigurationError
        TLS is asked for, and the identity is missing or cannot be used.
    """

    def __init__(
        self,
        destination: DicomDestination,
        *,
        calling_ae: str,
        timeout_s: float,
        identity: Identity | None = None,
    ) -> None:
        self._destination = destination
        self._tls = _tls(destination, identity)
        self._timeout_s = timeout_s
        self._ae = AE(ae_title=calling_ae)
        self._ae.connection_timeout = min(_CONNECTION_TIMEOUT_S, timeout_s)
        self._ae.acse_timeout = timeout_s
        self._ae.dimse_timeout = timeout_s
        self._ae.network_timeout = timeout_s

    def echo(self) -> None:
        """Ask for a sign of life (C-ECHO).

        Raises
        ------
        Unavailable
            The destination gave none.
        """
        with self._associate([build_context(Verification)]) as assoc:
            response = assoc.send_c_echo() if assoc.accepted_contexts else Dataset()
        if response.get("Status") != 0x0000:
            raise Unavailable(self._destination.name, "no answer to C-ECHO")

    def store(self, files: Sequence[Outgoing]) -> list[StoreResult]:
        """Send `files` in order over one association, up to the first that is not stored.

        Returns
        -------
        list of StoreResult
            One for each object that was tried; at least one. All but the last are stored.

        Raises
        ------
        Unavailable
            No association came about.
        """
        results: list[StoreResult] = []
        with closing(self.store_each(files)) as answers:
            for result in answers:
                results.append(result)
                if result.answer is not Answer.STORED:
                    break
        return results

    def store_each(self, files: Sequence[Outgoing]) -> Generator[StoreResult]:
        """Send `files` in order over one association, each whatever became of the others.

        Yields
        ------
        StoreResult
            One for each file.

        Raises
        ------
        Unavailable
            No association came about.
        """
        wanted = {(file.sop_class_uid, file.transfer_syntax_uid) for file in files}
        with self._associate([build_context(*pair) for pair in sorted(wanted)]) as assoc:
            for number, file in enumerate(files):
                yield _store(assoc, file, message_id=number % 0xFFFF + 1)

    def find(self, files: Sequence[Outgoing]) -> set[str]:
        """Ask which of `files` the destination holds.

        Returns
        -------
        set of str
            SOP Instance UIDs that it listed; empty also where it does not answer queries.

        Raises
        ------
        Unavailable
            No association came about.
        """
        with self._associate([build_context(STUDY_ROOT_FIND)]) as assoc:
            if not assoc.accepted_contexts:
                log.warning("destination answers no queries to=%s", self._destination.name)
                return set()
            return {file.sop_instance_uid for file in files if _is_listed(assoc, file)}

    def request_commitment(
        self,
        files: Sequence[Outgoing],
        transaction_uid: str,
        *,
        on_report: Callable[[Dataset], int],
    ) -> CommitmentAnswer:
        """Ask the destination to take responsibility for `files` (N-ACTION).

        Parameters
        ----------
        files : sequence of Outgoing
            Stored there before.
        transaction_uid : str
        on_report : callable
            Given the Event Information of a report that comes on this very association, returns
            the status to answer it with. Most archives open another one for it.

        Raises
        ------
        Unavailable
            No association came about.
        """
        reported, answered = threading.Event(), threading.Event()

        def take(event: evt.Event) -> tuple[int, None]:
            status = on_report(event.event_information)
            reported.set()
            return status, None

        def note_sent(event: evt.Event) -> None:
            if reported.is_set() and isinstance(event.pdu, P_DATA_TF):
                answered.set()  # to release the association before that would cut the answer off

        handlers: list[_Handler] = [
            (evt.EVT_N_EVENT_REPORT, take),
            (evt.EVT_PDU_SENT, note_sent),
        ]
        with self._associate([build_context(commitment.SOP_CLASS_UID)], handlers) as assoc:
            if not assoc.accepted_contexts:
                return CommitmentAnswer(Answer.REFUSED, None, "storage commitment is not offered")
            request = Dataset()
            request.TransactionUID = transaction_uid
            request.ReferencedSOPSequence = [_reference(file) for file in files]
            response, _ = assoc.send_n_action(
                request, _REQUEST_COMMITMENT, commitment.SOP_CLASS_UID, commitment.SOP_INSTANCE_UID
            )
            if "Status" not in response:  # taken or not: only a report will tell
                return CommitmentAnswer(Answer.UNKNOWN, None, "no answer to N-ACTION")
            status = int(response.Status)
            answer = _interpret_action(status)
            if answer is Answer.STORED:
                answered.wait(_REPORT_ON_SAME_ASSOCIATION_S)
            return CommitmentAnswer(answer, status, f"N-ACTION status 0x{status:04X}")

    @contextmanager
    def _associate(
        self,
        contexts: Sequence[PresentationContext],
        handlers: Sequence[_Handler] = (),
    ) -> Iterator[Association]:
        destination = self._destination
        assoc = self._ae.associate(
            destination.host,
            destination.port,
            contexts=list(contexts),
            ae_title=destination.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, self._bound_socket), *handlers],
            tls_args=self._tls,
        )
        if not assoc.is_established and not _all_contexts_refused(assoc):
            raise Unavailable(destination.name, _why_not_established(assoc, destination))
        try:
            yield assoc
        finally:
            if assoc.is_established:
                assoc.release()

    def _bound_socket(self, event: evt.Event) -> None:
        """Keep a peer that takes nothing off the network from blocking a send for ever."""
        transport = event.assoc.dul.socket
        if transport is not None and transport.socket is not None:
            transport.socket.settimeout(self._timeout_s)
            # A data set must not wait for the peer's delayed acknowledgement of its command.
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _all_contexts_refused(assoc: Association) -> bool:
    """Whether the peer accepted the association but nothing that was proposed in it."""
    return bool(assoc.rejected_contexts) and not assoc.accepted_contexts


def _tls(
    destination: DicomDestination, identity: Identity | None
) -> tuple[ssl.SSLContext, str] | None:
    """Context, and the name that the peer's certificate must carry; None without TLS."""
    if not destination.tls:
        return None
    if identity is None:  # never fall back to sending patient data in the clear
        raise ConfigurationError(
            f"{destination.name} is to be reached over TLS, and this node has no certificate.",
            "Set EPVS_TLS_CERTIFICATE, EPVS_TLS_KEY and EPVS_TLS_AUTHORITIES.",
        )
    return identity.client_context(), destination.tls_name or destination.host


def _why_not_established(assoc: Association, destination: DicomDestination) -> str:
    answer = assoc.acceptor.primitive
    if assoc.is_rejected and answer is not None:
        return f"association rejected: {answer.result_str}, {answer.reason_str}"
    reason = "association aborted or no connection" if assoc.is_aborted else "no association"
    if destination.tls:  # pynetdicom keeps the reason to its log
        name = destination.tls_name or destination.host
        reason += (
            f"; over TLS its certificate must carry the name {name} and come from "
            "EPVS_TLS_AUTHORITIES, and it must accept ours"
        )
    return reason


def _store(assoc: Association, file: Outgoing, message_id: int) -> StoreResult:
    uid = file.sop_instance_uid
    if not _is_accepted(assoc, file):
        name = UID(file.sop_class_uid).name
        detail = f"destination takes no {name} in this transfer syntax"
        return StoreResult(uid, Answer.REFUSED, None, detail)
    if not assoc.is_established:
        return StoreResult(uid, Answer.TRY_LATER, None, "association ended between two objects")
    response = assoc.send_c_store(file.path, msg_id=message_id)
    if "Status" not in response:  # the peer may have stored it and vanished before it could say so
        return StoreResult(uid, Answer.UNKNOWN, None, "no answer to C-STORE")
    status = int(response.Status)
    return StoreResult(uid, interpret(status), status, f"C-STORE status 0x{status:04X}")


def _interpret_action(status: int) -> Answer:
    """Meaning of an N-ACTION status (PS3.7 10.1.4.1.10)."""
    if status == 0x0000 or status in (0x0001, 0x0107, 0x0116) or status & 0xF000 == 0xB000:
        return Answer.STORED
    # No such SOP class, instance or action; not authorised; unrecognised operation.
    if status in (0x0112, 0x0118, 0x0122, 0x0123, 0x0124, 0x0211):
        return Answer.REFUSED
    return Answer.TRY_LATER


def _reference(file: Outgoing) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = file.sop_class_uid
    item.ReferencedSOPInstanceUID = file.sop_instance_uid
    return item


def _is_accepted(assoc: Association, file: Outgoing) -> bool:
    return any(
        context.abstract_syntax == file.sop_class_uid
        and file.transfer_syntax_uid in context.transfer_syntax
        for context in assoc.accepted_contexts
    )


def _is_listed(assoc: Association, file: Outgoing) -> bool:
    if not assoc.is_established:
        return False
    header = dcmread(file.path, stop_before_pixels=True, specific_tags=list(_UIDS))
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    for keyword in _UIDS:
        setattr(query, keyword, header[keyword].value)
    matches = [
        identifier.get("SOPInstanceUID")
        for _, identifier in assoc.send_c_find(query, STUDY_ROOT_FIND)
        if identifier is not None
    ]
    # Some archives ignore keys that they do not index, and list the whole series.
    return file.sop_instance_uid in matches
