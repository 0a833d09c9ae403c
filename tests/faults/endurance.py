"""Endurance test of the worker: ``python -m tests.faults.endurance --studies 1000``.

One worker with one pool process reads every study and grades one in `--share` with the whole
pipeline; the others have no series that can be graded, and get a report that says so. Receiver,
housekeeper, worker, Triton and a destination are real, the networks are stand-ins. Every study must
end with one report, and memory must not grow. Writes ``docs/results/endurance.md``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pydicom
from sqlalchemy import func, select

from db import audit
from db.models import Delivery, ReportObjectRow, Revision
from db.session import unit_of_work
from node.embedded.triton import EmbeddedTriton
from tests.support.builders.stand_in_models import digests, write_stand_ins
from tests.support.builders.synthetic_studies import generate_synthetic_study
from tests.support.clients import upper_layer as ul
from tests.support.paths import ROOT
from tests.support.servers.destination import scripted_destination
from tests.support.servers.node import Node
from tests.support.servers.receiver import run_receiver
from tests.support.servers.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT: Final = ROOT / "docs" / "results" / "endurance.md"
_POINTS: Final = 10
"""Measurements of memory."""
_AHEAD: Final = 4
"""Studies that wait while one is graded."""
_ENDED: Final = ("delivered", "rejected", "failed")
_STALLED_S: Final = 300.0
_CONTEXTS: Final = {1: (ul.MR_IMAGE, [ul.EXPLICIT])}


@dataclass
class Memory:
    """Resident memory in MB, each the largest value since the last `row`."""

    worker: psutil.Process
    others: dict[str, psutil.Process]
    highest: dict[str, float] = field(default_factory=dict)
    pool_processes: set[int] = field(default_factory=set)

    def look(self) -> None:
        """Measure now."""
        found = {"worker": self.worker, **self.others}
        for child in self.worker.children():
            for server in child.children():  # the process that checks the models at first has none
                self.pool_processes.add(child.pid)
                found |= {"pool process": child, "reading server": server}
        for name, process in found.items():
            try:
                group = [process, *(process.children(recursive=True) if name == "Triton" else ())]
                value = sum(each.memory_info().rss for each in group) / 1e6
            except psutil.NoSuchProcess:  # replaced meanwhile
                continue
            self.highest[name] = max(value, self.highest.get(name, 0.0))

    def row(self) -> dict[str, float]:
        """Return what was measured since the last call."""
        self.look()
        row, self.highest = self.highest, {}
        return row


def without_brain() -> list[pydicom.Dataset]:
    """Return a study of three slices that no rule selects."""
    slices = []
    for number in range(3):
        data_set = pydicom.Dataset()
        data_set.SOPClassUID = ul.MR_IMAGE
        data_set.SOPInstanceUID, data_set.SeriesInstanceUID = f"2.25.{number}", "2.25.9"
        data_set.Modality = "MR"
        data_set.PatientName, data_set.PatientID = "Canary^Patient", "CANARY-7"
        data_set.Rows = data_set.Columns = 8
        data_set.BitsAllocated = 16
        data_set.PixelData = bytes(128)
        data_set["PixelData"].VR = "OW"
        slices.append(data_set)
    return slices


def read_brain(folder: Path) -> list[pydicom.Dataset]:
    """Return the slices of a synthetic study, as data sets without File Meta Information."""
    generate_synthetic_study(folder, seed=20)
    slices = [pydicom.dcmread(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [pydicom.Dataset({each.tag: each for each in data_set}) for data_set in slices]


def send(port: int, study_uid: str, slices: Sequence[pydicom.Dataset]) -> None:
    """Store a study under UIDs of its own."""
    series: dict[str, str] = {}
    with ul.peer(port, 60) as peer:
        peer.associate(_CONTEXTS)
        for number, data_set in enumerate(slices, start=1):
            uid = f"{study_uid}.1.{number}"
            known = series.setdefault(data_set.SeriesInstanceUID, f"{study_uid}.2.{number}")
            data_set.SOPInstanceUID, data_set.StudyInstanceUID = uid, study_uid
            data_set.SeriesInstanceUID = known
            stream = BytesIO()
            pydicom.dcmwrite(stream, data_set, implicit_vr=False, little_endian=True)
            peer.send(ul.store(1, stream.getvalue(), uid))
            answer = peer.response()
            assert answer is not None
            assert answer.status == 0, f"status 0x{answer.status:04X}"
        peer.send(ul.RELEASE)
        assert peer.ended_by() == ul.RELEASE_RP


def count_ended(node: Node) -> int:
    """Count the studies that are finished."""
    with unit_of_work(node.engine, read_only=True) as session:
        ended = select(func.count()).where(Revision.state.in_(_ENDED))
        return session.scalar(ended) or 0


def grade_all(
    folder: Path, n_studies: int, share: int
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Let the studies pass through the node; return the rows of memory, and how they ended."""
    models = write_stand_ins(folder / "models")
    brain = read_brain(folder / "brain")
    other = without_brain()
    redis = RedisServer(folder)
    redis.start()
    rows: list[dict[str, float]] = []
    with (
        EmbeddedTriton(folder / "triton", folder / "triton.log", models, threads=1) as triton,
        run_receiver(folder / "data", log_level="WARNING") as receiver,
        scripted_destination() as pacs,
    ):
        node = Node(folder / "data", receiver.database_url, redis)
        node.set(
            triton_url=triton.url,
            models_dir=models,
            trusted_models=digests(models),
            destinations=f"{pacs.destination.name}?notgraded=1",
            lease_s=30.0,
            network_timeout_s=30.0,
        )
        # Not replaced after 50 tasks, as in production, which would hide what it does not free.
        worker = node.start_worker(
            "--max-tasks-per-child", "1000000", concurrency=1, app="worker.app"
        )
        node.start_housekeeper()
        assert triton.pid is not None
        memory = Memory(
            psutil.Process(worker.pid),
            {
                "receiver": psutil.Process(receiver.process.pid),
                "Triton": psutil.Process(triton.pid),
            },
        )
        began = changed = time.monotonic()
        sent = ended = 0
        try:
            while ended < n_studies:
                while sent < min(n_studies, ended + _AHEAD):
                    sent += 1
                    send(receiver.port, f"2.25.9{sent:06}", other if sent % share else brain)
                time.sleep(0.1)
                memory.look()
                before, ended = ended, count_ended(node)
                changed = time.monotonic() if ended != before else changed
                assert time.monotonic() - changed < _STALLED_S, node.log.read_text()[-4000:]
                step = max(1, n_studies // _POINTS)
                if ended // step > before // step:
                    rows.append({"studies": ended, **memory.row()})
                    pacs.data_sets.clear()  # of this process
                    print(  # noqa: T201
                        " ".join(f"{name}={value:.0f}" for name, value in rows[-1].items()),
                        flush=True,
                    )
            seconds = time.monotonic() - began
            node.wait(lambda: not unfinished_deliveries(node), "the last deliveries")
            facts = describe(node, memory, seconds)
        finally:
            node.stop()
            redis.kill()
    return rows, facts


def unfinished_deliveries(node: Node) -> int:
    """Count the deliveries that are not done."""
    with unit_of_work(node.engine, read_only=True) as session:
        return session.scalar(select(func.count()).where(Delivery.state != "delivered")) or 0


def describe(node: Node, memory: Memory, seconds: float) -> dict[str, Any]:
    """Return how the studies have ended; the audit trail must be intact."""
    with unit_of_work(node.engine, read_only=True) as session:
        states = Counter(state.value for state in session.scalars(select(Revision.state)))
        per_revision = (
            select(func.count())
            .where(ReportObjectRow.kind == "sr")
            .group_by(ReportObjectRow.revision_id)
        )
        reports = session.scalars(per_revision).all()
        verdict = audit.verify(session)
    assert verdict.ok, verdict.problem
    zombies = [
        process
        for process in memory.worker.children(recursive=True)
        if process.status() == psutil.STATUS_ZOMBIE
    ]
    return {
        "graded and delivered": states["delivered"],
        "not graded, report delivered": states["rejected"],
        "failed": states["failed"],
        "studies with exactly one SR": sum(count == 1 for count in reports),
        "unfinished files": len(list(node.folder.rglob("*.part"))),
        "zombies": len(zombies),
        "pool processes": len(memory.pool_processes),
        "audit events, chain intact": verdict.checked,
        "minutes": f"{seconds / 60:.1f}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the endurance test and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--share", type=int, default=10, help="one study in so many has a brain")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows, facts = grade_all(Path(folder), options.studies, options.share)
    ended = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    names = list(rows[0])
    table = "\n".join(
        "| " + " | ".join(f"{row.get(name, 0):.0f}" for name in names) + " |" for row in rows
    )
    REPORT.write_text(
        f"""# Endurance: many studies through one worker

Last output of `python -m tests.faults.endurance --studies {options.studies} \
--share {options.share}`.

One worker with one pool process read {options.studies} studies, one in {options.share} of them a
synthetic brain for the whole pipeline with stand-in networks, on {os.cpu_count()} cores. The pool
process was not replaced after 50 tasks, as it is in production.

| | |
|---|---|
{ended}

Resident memory in MB, the highest value within each row:

| {" | ".join(names)} |
|{"---|" * len(names)}
{table}
"""
    )


if __name__ == "__main__":
    main()
