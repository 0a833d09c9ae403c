"""DCMTK's storescp over TLS, which requires a client certificate."""

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

    from core.tls import Identity

AE_TITLE = "STORESCP"


@contextmanager
def run_storescp(folder: Path, identity: Identity | None) -> Iterator[DicomDestination]:
    """Run it on a free port; it stores received files in ``folder/received``.

    With an `identity` it accepts only TLS (BCP 195 profile) from peers with a certificate of the
    same authority; the returned destination has ``localhost`` and ``tls=1``.
    """
    received, port = folder / "received", free_port()
    received.mkdir(parents=True)
    command = [dcmtk_program("storescp"), "+B", "-od", str(received)]
    if identity is not None:
        command += ["+tls", str(identity.key), str(identity.certificate)]
        command += ["+cf", str(identity.authorities)]
    with (folder / "storescp.log").open("wb") as log:
        process = subprocess.Popen([*command, str(port)], stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: accepts_connections(port))
        yield DicomDestination(AE_TITLE, "localhost", port, tls=identity is not None)
    finally:
        process.terminate()
        process.wait(timeout=15)
