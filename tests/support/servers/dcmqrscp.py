"""DCMTK's dcmqrscp: an archive with storage and query, without storage commitment."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.destinations import DicomDestination
from tests.support.servers.dcmtk import dcmtk_program
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import accepts_connections, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AE_TITLE = "DCMQRSCP"


@contextmanager
def run_dcmqrscp(folder: Path) -> Iterator[DicomDestination]:
    """Run it on a free port with an empty store in `folder`."""
    store, port = folder / "store", free_port()
    store.mkdir(parents=True)
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{AE_TITLE} {store} RW (200, 1024mb) ANY\nAETable END\n"
    )
    with (folder / "dcmqrscp.log").open("wb") as log:
        process = subprocess.Popen(
            [dcmtk_program("dcmqrscp"), "-c", str(configuration)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: accepts_connections(port))
        yield DicomDestination(AE_TITLE, "127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(timeout=15)
