"""A storage SCP whose answers a test writes: the PACS on its bad days.

It also commits what it stored, in every way that archives do: on the association that asked, on one
that it opens itself, late, twice, for a part, or never.
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


class Whim(Enum):
    """What the destination does instead of answering."""

    STORE_AND_HANG_UP = auto()
    HANG_UP = auto()
    STORE_AND_FALL_SILENT = auto()
    STOP_READING = auto()
    STORE_AND_ANSWER_LATE = auto()
    """Success, when `release` is set."""


class Commits(Enum):
    """How the destination answers a request for storage commitment that it took."""

    HERE = auto()
    """On the association that asked."""
    ELSEWHERE = auto()
    """On an association that it opens to `reports_to`."""
    ELSEWHERE_WITHOUT_ROLES = auto()
    """The same by an archive that negotiates no roles."""
    NEVER = auto()


class ScriptedDestination:
    """Answers each C-STORE with the next of `script`, and with success when that is used up.

    Requests for commitment are answered with the next of `commitments`: a status, or a way to
    report; with `ELSEWHERE` when that is used up.
    """

    def __init__(self) -> None:
        self.script: deque[int | Whim] = deque()
        self.commitments: deque[int | Commits] = deque()
        self.reports_to = ("EPVSNODE", 0)
        """AE title and port on the loopback address."""
        self.reported: list[int] = []
        """Status that each report was answered with."""
        self.requested: list[str] = []
        """Transaction UIDs, in the order of the requests."""
        self.data_sets: dict[str, bytes] = {}
        """Encoded data set of each SOP instance that was stored."""
        self.arrivals: list[str] = []
        """SOP Instance UIDs in the order in which they came, repetitions included."""
        self.release = threading.Event()
        self.destination = DicomDestination("PACS", "127.0.0.1", 0)

    def store(self, event: evt.Event) -> int:
        """Handle a C-STORE."""
        request: Any = event.request
        uid = str(request.AffectedSOPInstanceUID)
        self.arrivals.append(uid)
        answer = self.script.popleft() if self.script else 0x0000
        if answer is Whim.STORE_AND_ANSWER_LATE:
            self.release.wait(20)
            answer = 0x0000
        stores = answer in (Whim.STORE_AND_HANG_UP, Whim.STORE_AND_FALL_SILENT) or (
            isinstance(answer, int) and (answer == 0 or answer & 0xF000 == 0xB000)
        )
        if stores:
            self.data_sets[uid] = request.DataSet.getvalue()
        if isinstance(answer, int):
            return answer
        if answer is Whim.STORE_AND_FALL_SILENT:
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
        """Handle an N-ACTION that asks for commitment."""
        request = event.action_information
        self.requested.append(str(request.TransactionUID))
        answer = self.commitments.popleft() if self.commitments else Commits.ELSEWHERE
        if isinstance(answer, int):
            return answer, None
        report = Dataset()
        report.TransactionUID = request.TransactionUID
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
        """Report on a transaction, asked for or not."""
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
        """Leave what comes in on the network where it is."""
        stops = bool(self.script) and self.script[0] is Whim.STOP_READING
        if stops and isinstance(event.pdu, P_DATA_TF):
            self.release.wait(20)


@contextmanager
def scripted_destination(
    *, answers_queries: bool = True, commits: bool = False, classes: Sequence[str] = ()
) -> Iterator[ScriptedDestination]:
    """Run a destination on a free port of the loopback address; it may take some classes only."""
    scripted = ScriptedDestination()
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
        ("127.0.0.1", 0),
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
    scripted.destination = DicomDestination("PACS", "127.0.0.1", server.socket.getsockname()[1])
    try:
        yield scripted
    finally:
        scripted.release.set()
        server.shutdown()
