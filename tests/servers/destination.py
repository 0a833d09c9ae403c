"""A storage SCP whose answers a test writes: the PACS on its bad days."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made on import

from core.destinations import DicomDestination

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")


class Whim(Enum):
    """What the destination does instead of answering."""

    STORE_AND_HANG_UP = auto()
    HANG_UP = auto()
    STORE_AND_FALL_SILENT = auto()
    STOP_READING = auto()
    STORE_AND_ANSWER_LATE = auto()
    """Success, when `release` is set."""


class ScriptedDestination:
    """Answers each C-STORE with the next of `script`, and with success when that is used up."""

    def __init__(self) -> None:
        self.script: deque[int | Whim] = deque()
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

    def stop_reading(self, event: evt.Event) -> None:
        """Leave what comes in on the network where it is."""
        stops = bool(self.script) and self.script[0] is Whim.STOP_READING
        if stops and isinstance(event.pdu, P_DATA_TF):
            self.release.wait(20)


@contextmanager
def scripted_destination(*, answers_queries: bool = True) -> Iterator[ScriptedDestination]:
    """Run a destination on a free port of the loopback address."""
    scripted = ScriptedDestination()
    ae = AE("PACS")
    ae.require_called_aet = True
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context(Verification)
    if answers_queries:
        ae.add_supported_context(_FIND)
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_C_STORE, scripted.store),
            (evt.EVT_C_FIND, scripted.find),
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
