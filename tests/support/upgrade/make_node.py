"""Makes data folder and database of a node of version 0.1.0 in the middle of its work.

Run with Python and code of that version, whose receiver, worker and housekeeper make everything;
in the folder of this checkout::

    git worktree add ../epvs-0.1.0 9bd9ffd && make -C ../epvs-0.1.0 .venv/.test-ready
    folder=$PWD/tests/support/upgrade
    (cd ../epvs-0.1.0 &&
        PYTHONPATH=. .venv/bin/python $folder/make_node.py $folder/node-0.1.0.tar.gz)
    .venv/bin/pytest tests/integration/node/test_upgrade.py

The archive holds the database, the spool, the reports, and what the PACS has stored.
"""

from __future__ import annotations

import importlib
import sqlite3
import sys
import tarfile
import tempfile
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import Dataset, dcmwrite
from pynetdicom import AE, AllStoragePresentationContexts, evt

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS, PORT = "127.0.0.77", 10417
DESTINATIONS = f"PACS@{ADDRESS}:{PORT},PACS@{ADDRESS}:{PORT + 1}"
"""The second does not run yet, so that deliveries to it are pending."""


def old(module: str) -> Any:
    """Import a module of version 0.1.0; the current code has no module of that name."""
    return importlib.import_module(module)


@contextmanager
def pacs() -> Iterator[Any]:
    """Run version 0.1.0's scripted destination on a port that the upgraded node finds again."""
    scripted = old("tests.servers.destination").ScriptedDestination()
    ae = AE("PACS")
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")
    handlers: Any = [(evt.EVT_C_STORE, scripted.store), (evt.EVT_C_FIND, scripted.find)]
    server = ae.start_server((ADDRESS, PORT), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield scripted
    finally:
        scripted.release.set()
        server.shutdown()


def encode(study: str, number: int, *, patient: str = "CANARY-7", pixel: int = 0) -> bytes:
    """Encode an MR instance of 8 x 8 pixels in Explicit VR Little Endian."""
    data_set = Dataset()
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    data_set.SOPInstanceUID = f"{study}.5.{number}"
    data_set.Modality = "MR"
    data_set.PatientName, data_set.PatientID = "Canary^Patient", patient
    data_set.AccessionNumber = "A1"
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = study, f"{study}.5"
    data_set.Rows = data_set.Columns = 8
    data_set.BitsAllocated = 16
    data_set.PixelData = bytes([pixel]) * 128
    data_set["PixelData"].VR = "OW"
    stream = BytesIO()
    dcmwrite(stream, data_set, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def work(folder: Path) -> dict[str, bytes]:
    """Let the node work until a study is in each state; return what the PACS has."""
    servers = "tests.servers"
    ul, models = old(f"{servers}.upper_layer"), old("db.models")
    silent = old(f"{servers}.destination").Whim.STORE_AND_FALL_SILENT
    select = old("sqlalchemy").select
    session_of = old("db.session").unit_of_work
    redis = old(f"{servers}.redis").RedisServer(folder)
    redis.start()

    def send(study: str, *numbers: int, **changes: Any) -> None:
        with ul.peer(receiver.port, 20) as peer:
            peer.associate({1: (ul.MR_IMAGE, [ul.EXPLICIT])})
            for number in numbers:
                uid = f"{study}.5.{number}"
                peer.send(ul.store(1, encode(study, number, **changes), uid))
                assert peer.response().status == 0
            peer.send(ul.RELEASE)

    def is_delivery(study: str, state: str) -> bool:
        with session_of(node.engine, read_only=True) as session:
            states = session.scalars(
                select(models.Delivery.state)
                .join(models.Revision)
                .where(
                    models.Revision.study_uid == study,
                    models.Delivery.destination.endswith(f":{PORT}"),
                )
            )
            return state in [found.value for found in states]

    with pacs() as destination, old(f"{servers}.receiver").run_receiver(folder) as receiver:
        node = old(f"{servers}.node").Node(folder, receiver.database_url, redis)
        node.set(destinations=DESTINATIONS, network_timeout_s=30.0)
        node.start_housekeeper()
        node.start_worker(concurrency=2)
        send("1.2.1", 1, 2)
        node.wait(lambda: is_delivery("1.2.1", "delivered"), "the first report")
        send("1.2.1", 2, pixel=9)  # another content: quarantined
        send("1.2.1", 3, patient="CANARY-8")  # another patient: quarantined
        destination.script.append(0xC000)
        send("1.2.2", 1)
        node.wait(lambda: is_delivery("1.2.2", "parked"), "the refused report")
        for study, act in (("1.2.6", "reject"), ("1.2.7", "fail"), ("1.2.4", "wait")):
            node.script.write(study, act)
            send(study, 1)
        node.wait_for_state("1.2.6", "rejected")
        node.wait_for_state("1.2.7", "failed")
        node.wait_for_state("1.2.4", "processing")
        n_arrivals = len(destination.arrivals)
        destination.script.append(silent)
        send("1.2.3", 1)
        node.wait(lambda: len(destination.arrivals) > n_arrivals, "the report without response")
        send("1.2.4", 2)  # too late for the revision in hand
        node.kill_worker()
        send("1.2.5", 1)
        node.wait_for_state("1.2.5", "queued")
        node.stop()
        send("1.2.8", 1)
        redis.kill()
        stored: dict[str, bytes] = dict(destination.data_sets)
    return stored


def main() -> None:
    """Make the archive that is named on the command line."""
    archive = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="epvs-0.1.0-") as name:
        folder = Path(name)
        for uid, content in work(folder).items():
            (folder / "pacs").mkdir(exist_ok=True)
            (folder / "pacs" / uid).write_bytes(content)
        (folder / "data-dir").write_text(name)
        with closing(sqlite3.connect(folder / "epvs.sqlite")) as database:
            database.execute("VACUUM INTO ?", (str(folder / "node.sqlite"),))
        with tarfile.open(archive, "w:gz") as file:
            for part in ("node.sqlite", "data-dir", "pacs", "spool", "reports"):
                file.add(folder / part, part)


if __name__ == "__main__":
    main()
