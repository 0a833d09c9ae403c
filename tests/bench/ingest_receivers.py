"""The receivers that ``tests.bench.ingest`` compares, each a process of its own.

``python -m tests.bench.ingest_receivers unsynced`` is the node's receiver without durability: it
replaces fsync in its own process, so that the product needs no setting that would switch it off.
``… pynetdicom PORT FOLDER`` is the handler of pynetdicom's own documentation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from pynetdicom import AE, AllStoragePresentationContexts, evt

import receiver.__main__
from tests.support.servers.dcmtk import dcmtk_program
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import accepts_connections, run_receiver, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_MODULE: Final = "tests.bench.ingest_receivers"
_TUNED: Final = {"TCP_NODELAY": "1"}


@dataclass(frozen=True)
class Running:
    """A receiver that listens."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path

    def n_stored(self) -> int:
        """Files as long as an image, and none of Orthanc's index."""
        files = (path for path in self.folder.rglob("*") if not path.name.startswith("index"))
        return sum(1 for path in files if path.stat().st_size > 290_000)


@contextmanager
def _ours(folder: Path, module: Sequence[str], processes: int = 1) -> Iterator[Running]:
    with run_receiver(
        folder, module=module, log_level="INFO", receiver_processes=str(processes)
    ) as started:
        yield Running(started.port, started.process, folder / "spool")


@contextmanager
def _program(
    folder: Path, command: Callable[[int], Sequence[str]], environment: dict[str, str]
) -> Iterator[Running]:
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(
        command(port),
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: accepts_connections(port) or process.poll() is not None)
        assert process.poll() is None, "the receiver did not start"
        yield Running(port, process, folder)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _storescp(folder: Path, tuned: bool, *options: str) -> Iterator[Running]:
    if tuned:
        options = (*options, "--max-pdu", "131072")

    def command(port: int) -> list[str]:
        return [dcmtk_program("storescp"), *options, "-od", str(folder), str(port)]

    with _program(folder, command, _TUNED if tuned else {}) as running:
        yield running


@contextmanager
def _orthanc(folder: Path, tuned: bool) -> Iterator[Running]:
    def command(port: int) -> list[str]:
        configuration = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "DicomPort": port,
            "HttpServerEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomCheckCalledAet": False,
        }
        path = folder / "orthanc.json"
        path.write_text(json.dumps(configuration))
        return ["/usr/sbin/Orthanc", str(path)]

    with _program(folder, command, _TUNED if tuned else {}) as running:
        yield running


@contextmanager
def _pynetdicom(folder: Path, _tuned: bool) -> Iterator[Running]:
    def command(port: int) -> list[str]:
        return [sys.executable, "-m", _MODULE, "pynetdicom", str(port), str(folder)]

    with _program(folder, command, {}) as running:
        yield running


RECEIVERS: Final[dict[str, Callable[[Path, bool], Any]]] = {
    "ours, durable": lambda folder, _: _ours(folder, ["receiver"]),
    "ours, 2 processes": lambda folder, _: _ours(folder, ["receiver"], 2),
    "ours, without fsync": lambda folder, _: _ours(folder, [_MODULE, "unsynced"]),
    "pynetdicom handler": _pynetdicom,
    "storescp": _storescp,
    "storescp --fork": lambda folder, tuned: _storescp(folder, tuned, "--fork"),
    "Orthanc": _orthanc,
}
"""Each is given a folder that does not exist, and whether it is tuned as far as it can be."""


def _serve_unsynced() -> int:
    os.fsync = lambda _descriptor: None  # type: ignore[assignment]

    @sa.event.listens_for(sa.Pool, "checkout")
    def _switch_off(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    return receiver.__main__.main()


def _serve_pynetdicom(port: int, folder: Path) -> None:
    def store(event: Any) -> int:
        data_set = event.dataset
        data_set.file_meta = event.file_meta
        data_set.save_as(folder / data_set.SOPInstanceUID, enforce_file_format=True)
        return 0x0000

    ae = AE("ANY")
    ae.supported_contexts = AllStoragePresentationContexts
    ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    if sys.argv[1] == "unsynced":
        os._exit(_serve_unsynced())
    _serve_pynetdicom(int(sys.argv[2]), Path(sys.argv[3]))
