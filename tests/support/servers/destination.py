"""A storage SCP whose responses, and faults, are scripted by a test.

It also supports storage commitment in the ways that archives do: with a report on the requesting
association or on one that it opens itself, late, repeated, for some of the instances, or never.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made on import

from core import commitment
from core.destinations import DicomDestination

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")


class Fault(Enum):
    """A fault of the destination in place of a C-STORE response."""

    STORE_AND_HANG_UP = auto()
    HANG_UP = auto()
    STORE_AND_FALL_SILENT = auto()
    STOP_READING = auto()
    STORE_AND_ANSWER_LATE = auto()
    """Success, once `release` is set."""


class Commits(Enum):
    """How the destination reports on an accepted storage commitment request."""

    HERE = auto()
    """On the requesting association."""
    ELSEWHERE = auto()
    """On a new association to `reports_to`."""
    ELSEWHERE_WITHOUT_ROLES = auto()
    """On a new association without role negotiation."""
    NEVER = auto()


class ScriptedDestination:
    """Scripted behaviour of the destination.

    Each C-STORE takes the next item of `script`, a status or a fault; success once it is empty.
    Each commitment request takes the next item of `commitments`, an N-ACTION status or a way to
    report; `ELSEWHERE` once it is empty.
    """

    def __init__(self) -> None:
        self.script: deque[int | Fault] = deque()
        self.commitments: deque[int | Commits] = deque()
        self.reports_to = ("EPVSNODE", 0)
        """AE title and port on the loopback address."""
        self.reported: list[int] = []
        """Status of the response to each commitment report."""
        self.forged_transaction_uid = ""
        """Reported in place of the transaction that was requested."""
        self.requested: list[str] = []
        """Transaction UIDs in order of request."""
        self.data_sets: dict[str, bytes] = {}
        """Encoded data set of each stored SOP instance."""
        self.arrivals: list[str] = []
        """SOP Instance UIDs in order of arrival, resends included."""
        self.release = threading.Event()
        self.destination = DicomDestination("PACS", "127.0.0.1", 0)

    def next_answer(self) -> int | Fault:
        """Take what the next C-STORE is answered."""
        return self.script.popleft() if self.script else 0x0000

    def next_commitment(self) -> int | Commits:
        """Take how the next commitment request is answered."""
        return self.commitments.popleft() if self.commitments else Commits.ELSEWHERE

    def store(self, event: evt.Event) -> int:
        """Handle a C-STORE."""
        request: Any = event.request
        uid = str(request.AffectedSOPInstanceUID)
        self.arrivals.append(uid)
        answer = self.next_answer()
        if answer is Fault.STORE_AND_ANSWER_LATE:
            self.release.wait(20)
            answer = 0x0000
        stores = answer in (Fault.STORE_AND_HANG_UP, Fault.STORE_AND_FALL_SILENT) or (
            isinstance(answer, int) and (answer == 0 or answer & 0xF000 == 0xB000)
        )
        if stores:
            self.data_sets[uid] = request.DataSet.getvalue()
        if isinstance(answer, int):
            return answer
        if answer is Fault.STORE_AND_FALL_SILENT:
            self.release.wait(20)
        event.assoc.abort()
        return 0xC000

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        """Handle a C-FIND at IMAGE level."""
        wanted = event.identifier.SOPInstanceUID
        for uid in self.data_sets:
            if uid == wanted:
                match = Dataset()
                match.QueryRetrieveLevel = "IMAGE"
                match.SOPInstanceUID = uid
                yield 0xFF00, match

    def act(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """Handle an N-ACTION for storage commitment."""
        request = event.action_information
        self.requested.append(str(request.TransactionUID))
        answer = self.next_commitment()
        if isinstance(answer, int):
            return answer, None
        report = Dataset()
        report.TransactionUID = self.forged_transaction_uid or request.TransactionUID
        kept, lost = [], []
        for item in request.ReferencedSOPSequence:
            if item.ReferencedSOPInstanceUID in self.data_sets:
                kept.append(item)
            else:
                item.FailureReason = 0x0112
                lost.append(item)
        if kept:
            report.ReferencedSOPSequence = kept
        if lost:
            report.FailedSOPSequence = lost
        if answer is not Commits.NEVER:
            threading.Thread(
                target=self._report, args=(event.assoc, answer, report, bool(lost)), daemon=True
            ).start()
        return 0x0000, None

    def report(self, transaction_uid: str) -> None:
        """Send a commitment report, requested or not."""
        information = Dataset()
        information.TransactionUID = transaction_uid
        self._report(None, Commits.ELSEWHERE, information, failed=False)

    def _report(self, asker: Any, how: Commits, report: Dataset, failed: bool) -> None:
        if how is Commits.HERE:
            time.sleep(0.2)  # after the response to the N-ACTION
            self._send_report(asker, report, failed)
            return
        ae_title, port = self.reports_to
        ae = AE("PACS")
        ae.add_requested_context(commitment.SOP_CLASS_UID)
        roles = [build_role(commitment.SOP_CLASS_UID, scp_role=True)]
        assoc = ae.associate(
            "127.0.0.1",
            port,
            ae_title=ae_title,
            ext_neg=roles if how is Commits.ELSEWHERE else None,  # type: ignore[arg-type]
        )
        if assoc.is_established:
            if how is Commits.ELSEWHERE_WITHOUT_ROLES:
                assoc.accepted_contexts[0]._as_scp = True  # pynetdicom would not send it otherwise
            self._send_report(assoc, report, failed)
            assoc.release()

    def _send_report(self, assoc: Any, report: Dataset, failed: bool) -> None:
        answer, _ = assoc.send_n_event_report(
            report, 2 if failed else 1, commitment.SOP_CLASS_UID, commitment.SOP_INSTANCE_UID
        )
        self.reported.append(int(answer.get("Status", -1)))

    def stop_reading(self, event: evt.Event) -> None:
        """Stop reading from the network, if the script says so."""
        stops = bool(self.script) and self.script[0] is Fault.STOP_READING
        if stops and isinstance(event.pdu, P_DATA_TF):
            self.release.wait(20)


@contextmanager
def scripted_destination(
    *,
    answers_queries: bool = True,
    commits: bool = False,
    classes: Sequence[str] = (),
    address: str = "127.0.0.1",
    port: int = 0,
    scripted: ScriptedDestination | None = None,
) -> Iterator[ScriptedDestination]:
    """Run a destination, by default on a free port, for all storage classes or for `classes`."""
    scripted = scripted or ScriptedDestination()
    ae = AE("PACS")
    ae.require_called_aet = True
    ae.supported_contexts = [
        context
        for context in AllStoragePresentationContexts
        if not classes or context.abstract_syntax in classes
    ]
    ae.add_supported_context(Verification)
    if answers_queries:
        ae.add_supported_context(_FIND)
    if commits:
        ae.add_supported_context(commitment.SOP_CLASS_UID)
    server = ae.start_server(
        (address, port),
        block=False,
        evt_handlers=[
            (evt.EVT_C_STORE, scripted.store),
            (evt.EVT_C_FIND, scripted.find),
            (evt.EVT_N_ACTION, scripted.act),
            (evt.EVT_PDU_RECV, scripted.stop_reading),
        ],
    )
    assert server is not None
    assert server.socket is not None
    scripted.destination = DicomDestination("PACS", address, server.socket.getsockname()[1])
    try:
        yield scripted
    finally:
        scripted.release.set()
        server.shutdown()
