"""Time to send a report to an archive and to have its storage confirmed."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pynetdicom import AE, evt

from core import commitment
from core.commitment import read_commitment_report
from core.destinations import DicomDestination
from core.uids import derived_uid
from node.demonstration.pacs import AE_TITLE as ORTHANC
from receiver.contexts import supported_contexts
from tests.support.servers.dcmqrscp import run_dcmqrscp
from tests.support.servers.orthanc import start_orthanc
from worker.delivery.dicom_scu import DicomScu, OutgoingFile
from worker.delivery.statuses import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset

    from core.results import Report

    Proof = Callable[[DicomScu, list[OutgoingFile]], tuple[set[str], float]]
    """SOP Instance UIDs that the archive confirms, and the time of the confirmation."""

OWN_AE: Final = "EPVSNODE"


def send(
    report: Report, folder: Path, destination: DicomDestination, proofs: dict[str, Proof]
) -> dict[str, float]:
    """Send a report once, as the worker does, and confirm it; return the seconds of each step."""
    files = []
    for number, item in enumerate(report.objects):
        path = folder / f"{number}.dcm"
        path.write_bytes(item.content)
        uids = (item.sop_class_uid, item.sop_instance_uid, item.transfer_syntax_uid)
        files.append(OutgoingFile(*uids, path))
    user = DicomScu(destination, calling_ae=OWN_AE, timeout_s=30)
    seconds: dict[str, list[float]] = {"pm": [], "sc": [], "sr": []}
    last = started = time.perf_counter()
    for item, result in zip(report.objects, user.store_each(files), strict=True):
        if result.response is not Response.STORED:
            raise RuntimeError(f"{item.kind} was not stored: {result.detail}")
        now = time.perf_counter()
        seconds[item.kind].append(now - last)
        last = now
    found = {
        "C-STORE of the map, after opening the association": seconds["pm"][0],
        "C-STORE of a picture": statistics.median(seconds["sc"]),
        "C-STORE of the SR": seconds["sr"][0],
        "**all six stored, association released**": time.perf_counter() - started,
    }
    for name, prove in proofs.items():
        started = time.perf_counter()
        held, proven = prove(user, files)
        if not {file.sop_instance_uid for file in files} <= held:
            raise RuntimeError("the archive does not confirm all objects")
        found[f"proof: {name}"] = proven - started
    return found


def by_query(user: DicomScu, files: list[OutgoingFile]) -> tuple[set[str], float]:
    """Query by C-FIND at IMAGE level which files arrived."""
    return user.find(files), time.perf_counter()


class Commitment:
    """Requests storage commitment; an archive may report on its own association, to `port`."""

    def __init__(self) -> None:
        self.port = 0
        self._arrived = threading.Event()
        self._committed: frozenset[str] = frozenset()
        self._at = 0.0

    def __call__(self, user: DicomScu, files: list[OutgoingFile]) -> tuple[set[str], float]:
        self._arrived.clear()
        transaction = derived_uid("bench", {"at": time.time_ns()})
        answer = user.request_commitment(files, transaction, on_report=self._record)
        if answer.response is not Response.STORED or not self._arrived.wait(60):
            raise RuntimeError(f"no commitment: {answer.detail}")
        # The report has arrived on an association of the archive; the request still waits for one.
        return set(self._committed), self._at

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen as the receiver does."""
        ae = AE(OWN_AE)
        ae.supported_contexts = [
            context
            for context in supported_contexts("refuse")
            if context.abstract_syntax == commitment.SOP_CLASS_UID
        ]
        server = ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)]
        )
        if server is None or server.socket is None:
            raise RuntimeError("no port to listen on")
        self.port = server.socket.getsockname()[1]
        try:
            yield
        finally:
            server.shutdown()

    def _take(self, event: evt.Event) -> tuple[int, None]:
        return self._record(event.event_information), None

    def _record(self, information: Dataset) -> int:
        self._at = time.perf_counter()
        self._committed = read_commitment_report(information).committed
        self._arrived.set()
        return 0x0000


@contextmanager
def archives(folder: Path) -> Iterator[dict[str, tuple[DicomDestination, dict[str, Proof]]]]:
    """Run the archives with empty stores; yield each with its ways to confirm storage."""
    reports = Commitment()
    with reports.listening(), run_dcmqrscp(folder / "dcmqrscp") as dcmqrscp:
        pacs = start_orthanc(folder / "orthanc")
        try:
            modality = {
                "AET": OWN_AE,
                "Host": "127.0.0.1",
                "Port": reports.port,
                "AllowStorageCommitment": True,
            }
            pacs.rest("/modalities/epvs", modality, method="PUT")
            orthanc = DicomDestination(ORTHANC, "127.0.0.1", pacs.dicom_port)
            query: dict[str, Proof] = {"C-FIND of all six": by_query}
            yield {
                "Orthanc": (orthanc, {"Storage Commitment": reports, **query}),
                "DCMTK's dcmqrscp": (dcmqrscp, query),
            }
        finally:
            pacs.stop()
