"""The DICOM service class user: the one module that opens associations.

C-STORE of Part 10 files (PS3.4 annex B), a C-FIND at IMAGE level for what the peer holds (PS3.4
annex C), the N-ACTION that requests storage commitment (PS3.4 annex J), and C-ECHO.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made on import

from core import commitment
from core.errors import Unavailable
from core.tls import client_context_to
from worker.delivery.statuses import (
    CommitmentResult,
    Response,
    StoreResult,
    interpret_action,
    interpret_store,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

    from core.destinations import DicomDestination
    from core.tls import Identity

# Send each file byte for byte; by default pynetdicom decodes and re-encodes it.
_config.STORE_SEND_CHUNKED_DATASET = True

STUDY_ROOT_FIND: Final = UID("1.2.840.10008.5.1.4.1.2.2.1")
"""Study Root Query/Retrieve Information Model - FIND (PS3.4 C.6.2.3)."""
_RESPONSE_SYNTAXES: Final[list[str | UID]] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
"""Of what the destination sends: a deflated response could inflate without limit."""
_REQUEST_COMMITMENT: Final = 1
"""Action Type ID (PS3.4 table J.3-1)."""
_REPORT_ON_SAME_ASSOCIATION_S: Final = 1.0
_CONNECTION_TIMEOUT_S: Final = 10.0
_Handler = tuple[evt.EventType, Callable[..., Any]]
_UIDS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

log = logging.getLogger(__name__)


class Outgoing(Protocol):
    """What sending needs to know about a Part 10 file."""

    @property
    def sop_class_uid(self) -> str: ...  # noqa: D102 - DICOM attributes
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


class DicomScu:
    """Service class user of one destination.

    Parameters
    ----------
    destination : DicomDestination
    calling_ae : str
    timeout_s : float
        For each response, and for each write that the peer must read.
    identity : Identity or None
        Certificate and key of the node, for destinations that are reached over TLS.

    Raises
    ------
    ConfigurationError
        The destination requires TLS, and the identity is missing or cannot be used.
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
        """Verify that the destination responds (C-ECHO).

        Raises
        ------
        Unavailable
            It does not.
        """
        with self._associate([build_context(Verification)]) as assoc:
            response = assoc.send_c_echo() if assoc.accepted_contexts else Dataset()
        if response.get("Status") != 0x0000:
            raise Unavailable(self._destination.name, "no response to C-ECHO")

    def store(self, files: Sequence[Outgoing]) -> list[StoreResult]:
        """Send `files` in order over one association, up to the first that is not stored.

        Returns
        -------
        list of StoreResult
            One for each object that was sent; at least one. All but the last are stored.

        Raises
        ------
        Unavailable
            No association could be established.
        """
        results: list[StoreResult] = []
        with closing(self.store_each(files)) as results_so_far:
            for result in results_so_far:
                results.append(result)
                if result.response is not Response.STORED:
                    break
        return results

    def store_each(self, files: Sequence[Outgoing]) -> Generator[StoreResult]:
        """Send `files` in order over one association, regardless of failures.

        Yields
        ------
        StoreResult
            One for each file.

        Raises
        ------
        Unavailable
            No association could be established.
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
            SOP Instance UIDs that it lists; empty if it does not support queries.

        Raises
        ------
        Unavailable
            No association could be established.
        """
        with self._associate([build_context(STUDY_ROOT_FIND, _RESPONSE_SYNTAXES)]) as assoc:
            if not assoc.accepted_contexts:
                log.warning("destination supports no queries to=%s", self._destination.name)
                return set()
            return {file.sop_instance_uid for file in files if _is_listed(assoc, file)}

    def request_commitment(
        self,
        files: Sequence[Outgoing],
        transaction_uid: str,
        *,
        on_report: Callable[[Dataset], int],
    ) -> CommitmentResult:
        """Request storage commitment for `files` (N-ACTION).

        Parameters
        ----------
        files : sequence of Outgoing
            Already stored there.
        transaction_uid : str
        on_report : callable
            Called with the Event Information of a report that arrives on this association; returns
            the status of the response. Most archives open an association of their own for it.

        Raises
        ------
        Unavailable
            No association could be established.
        """
        reported, responded = threading.Event(), threading.Event()

        def respond(event: evt.Event) -> tuple[int, None]:
            status = on_report(event.event_information)
            reported.set()
            return status, None

        def on_pdu_sent(event: evt.Event) -> None:
            if reported.is_set() and isinstance(event.pdu, P_DATA_TF):
                responded.set()  # an earlier release would cut off the response

        handlers: list[_Handler] = [
            (evt.EVT_N_EVENT_REPORT, respond),
            (evt.EVT_PDU_SENT, on_pdu_sent),
        ]
        context = build_context(commitment.SOP_CLASS_UID, _RESPONSE_SYNTAXES)
        with self._associate([context], handlers) as assoc:
            if not assoc.accepted_contexts:
                return CommitmentResult(Response.REFUSED, None, "storage commitment is not offered")
            request = Dataset()
            request.TransactionUID = transaction_uid
            request.ReferencedSOPSequence = [_reference(file) for file in files]
            response, _ = assoc.send_n_action(
                request, _REQUEST_COMMITMENT, commitment.SOP_CLASS_UID, commitment.SOP_INSTANCE_UID
            )
            if "Status" not in response:  # accepted or not: only a report can tell
                return CommitmentResult(Response.UNKNOWN, None, "no response to N-ACTION")
            status = int(response.Status)
            meaning = interpret_action(status)
            if meaning is Response.STORED:
                responded.wait(_REPORT_ON_SAME_ASSOCIATION_S)
            return CommitmentResult(meaning, status, f"N-ACTION status 0x{status:04X}")

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
        """Limit the time that a send waits for a peer that does not read."""
        transport = event.assoc.dul.socket
        if transport is not None and transport.socket is not None:
            transport.socket.settimeout(self._timeout_s)
            # Otherwise a data set waits for the peer's delayed TCP acknowledgement of its command.
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _all_contexts_refused(assoc: Association) -> bool:
    """Whether the peer accepted the association but none of the presentation contexts."""
    return bool(assoc.rejected_contexts) and not assoc.accepted_contexts


def _tls(
    destination: DicomDestination, identity: Identity | None
) -> tuple[ssl.SSLContext, str] | None:
    """TLS context, and the name that the peer's certificate must state; None without TLS."""
    if not destination.tls:
        return None
    context = client_context_to(destination.name, identity)
    return context, destination.certificate_name


def _why_not_established(assoc: Association, destination: DicomDestination) -> str:
    response = assoc.acceptor.primitive
    if assoc.is_rejected and response is not None:
        return f"association rejected: {response.result_str}, {response.reason_str}"
    reason = "association aborted or no connection" if assoc.is_aborted else "no association"
    if destination.tls:  # pynetdicom only logs the reason
        name = destination.certificate_name
        reason += (
            f"; over TLS its certificate must state the name {name} and be signed by one of "
            "EPVS_TLS_AUTHORITIES, and it must accept this node's certificate"
        )
    return reason


def _store(assoc: Association, file: Outgoing, message_id: int) -> StoreResult:
    uid = file.sop_instance_uid
    if not _is_accepted(assoc, file):
        name = UID(file.sop_class_uid).name
        detail = f"destination accepts no {name} in this transfer syntax"
        return StoreResult(uid, Response.REFUSED, None, detail)
    if not assoc.is_established:
        return StoreResult(uid, Response.TRY_LATER, None, "association ended between two objects")
    response = assoc.send_c_store(file.path, msg_id=message_id)
    if "Status" not in response:  # the peer may have stored it before the connection was lost
        return StoreResult(uid, Response.UNKNOWN, None, "no response to C-STORE")
    status = int(response.Status)
    return StoreResult(uid, interpret_store(status), status, f"C-STORE status 0x{status:04X}")


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
    # Some archives ignore keys that they do not index and return the whole series.
    return file.sop_instance_uid in matches
