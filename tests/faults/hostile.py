"""Load test with hostile connections: ``python -m tests.faults.hostile --seconds 60``.

Two hundred connections, 190 from twenty addresses that are not admitted and 10 from one that is, do
what no sender does: they stay silent, send a byte at a time, announce PDUs of gigabytes, or stop in
the middle of a request or of a data set. Each is opened again after the receiver has closed it.
Meanwhile one sender stores instances, and another one asks for C-ECHO, each time on a new
association. Writes ``docs/results/hostile.md``.
"""

from __future__ import annotations

import argparse
import itertools
import socket
import statistics
import struct
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import psutil

from tests.support.builders.instances import encoded_instance
from tests.support.clients import upper_layer as ul
from tests.support.paths import ROOT
from tests.support.servers.receiver import run_receiver

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT: Final = ROOT / "docs" / "results" / "hostile.md"
_ECHO: Final = {1: (ul.VERIFICATION, [ul.IMPLICIT])}
_STORE: Final = {1: (ul.MR_IMAGE, [ul.EXPLICIT])}
_NOT_ADMITTED: Final = tuple(f"127.0.1.{number}" for number in range(1, 21))
_ADMITTED: Final = "127.0.0.1"
_N_NOT_ADMITTED, _N_ADMITTED = 190, 10
_REQUEST: Final = ul.associate_rq(_STORE)

BEHAVIOURS: Final = ("silent", "a byte a second", "gigabytes", "half a request", "random bytes")
"""Of the connections that are not admitted; the others stop in the middle of a data set."""


class Hostile(threading.Thread):
    """Holds one connection after the other for as long as it can.

    Parameters
    ----------
    port : int
    address : str
        Source address.
    behaviour : str
    """

    def __init__(self, port: int, address: str, behaviour: str) -> None:
        super().__init__(daemon=True)
        self._port, self._address, self._behaviour = port, address, behaviour
        self.stopped = threading.Event()
        self.n_connections = 0

    def run(self) -> None:
        while not self.stopped.is_set():
            with suppress(OSError, AssertionError):
                self._hold_one()
            self.stopped.wait(0.5)

    def _hold_one(self) -> None:
        with socket.create_connection(
            ("127.0.0.1", self._port), 10, source_address=(self._address, 0)
        ) as connection:
            self.n_connections += 1
            peer = ul.Peer(connection)
            if self._address == _ADMITTED:
                peer.associate(_STORE)
                data_set = encoded_instance("2.25.1", "2.25.2", pixels=np.ones((64, 64), np.uint16))
                peer.send(ul.store(1, data_set, "2.25.1")[:2000])
            elif self._behaviour == "gigabytes":
                peer.send(struct.pack(">BxL", ul.ASSOCIATE_RQ, 0xFFFFFFF0) + bytes(100))
            elif self._behaviour == "half a request":
                peer.send(_REQUEST[: len(_REQUEST) // 2])
            elif self._behaviour == "random bytes":
                peer.send(bytes(range(256)))
            connection.settimeout(1.0)
            for number in itertools.count():
                if self.stopped.is_set():
                    return
                if self._behaviour == "a byte a second":
                    peer.send(_REQUEST[number : number + 1] or b"\0")
                try:
                    if not connection.recv(4096):
                        return
                except TimeoutError:
                    pass


class Storing(threading.Thread):
    """A legitimate sender."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.stopped = threading.Event()
        self.n_stored = 0

    def run(self) -> None:
        pixels = np.ones((384, 384), np.uint16)
        with ul.peer(self._port, 30) as peer:
            peer.associate(_STORE)
            while not self.stopped.is_set():
                uid = f"2.25.3{self.n_stored:06}"
                study = f"2.25.4{self.n_stored // 28:05}"
                peer.send(ul.store(1, encoded_instance(uid, study, pixels=pixels), uid))
                response = peer.response()
                assert response is not None
                assert response.status == 0
                self.n_stored += 1
            peer.send(ul.RELEASE)


def echo_seconds(port: int) -> float:
    """Return how long a C-ECHO takes, including its connection and association."""
    began = time.monotonic()
    with ul.peer(port, 30) as peer:
        peer.associate(_ECHO)
        peer.send(ul.echo(1))
        response = peer.response()
        assert response is not None
        assert response.status == 0
        peer.send(ul.RELEASE)
        peer.receive()
    return time.monotonic() - began


def run_load_test(folder: Path, seconds: float) -> dict[str, float]:
    """Run the load test on a receiver of its own and return the figures."""
    with run_receiver(
        folder, log_level="ERROR", callers=f"*@{_ADMITTED}", network_timeout_s="10"
    ) as receiver:
        process = psutil.Process(receiver.process.pid)
        before = _measure(receiver.port, process, seconds / 3)
        hostiles = [
            Hostile(receiver.port, address, behaviour)
            for address, behaviour, _ in zip(
                itertools.cycle(_NOT_ADMITTED), itertools.cycle(BEHAVIOURS), range(_N_NOT_ADMITTED)
            )
        ] + [Hostile(receiver.port, _ADMITTED, "half a data set") for _ in range(_N_ADMITTED)]
        for hostile in hostiles:
            hostile.start()
        time.sleep(2)
        during = _measure(receiver.port, process, seconds)
        for hostile in hostiles:
            hostile.stopped.set()
        for hostile in hostiles:
            hostile.join()
        assert receiver.process.poll() is None
        n_rows = len(receiver.instances())
    return {
        **{f"{name} before": value for name, value in before.items()},
        **{f"{name} during": value for name, value in during.items()},
        "hostile connections": sum(hostile.n_connections for hostile in hostiles),
        "rows": n_rows,
    }


def _measure(port: int, process: psutil.Process, seconds: float) -> dict[str, float]:
    sender = Storing(port)
    sender.start()
    end, times = time.monotonic() + seconds, []
    while time.monotonic() < end:
        times.append(echo_seconds(port))
        time.sleep(0.05)
    memory = process.memory_info().rss / 1e6
    sender.stopped.set()
    sender.join()
    times.sort()
    return {
        "echoes": len(times),
        "median": statistics.median(times),
        "p99": times[int(0.99 * (len(times) - 1))],
        "slowest": times[-1],
        "memory": memory,
        "stored": sender.n_stored,
        "stored a second": sender.n_stored / seconds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the load test and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = run_load_test(Path(folder) / "data", options.seconds)
    growth = found["memory during"] / found["memory before"] - 1
    rows = "\n".join(
        f"| {name} | {found[f'{key} before']:{form}} | {found[f'{key} during']:{form}} |"
        for name, key, form in (
            ("C-ECHO with its association: count", "echoes", ".0f"),
            ("median, s", "median", ".3f"),
            ("99 %, s", "p99", ".3f"),
            ("slowest, s", "slowest", ".3f"),
            ("instances stored a second by one sender", "stored a second", ".0f"),
            ("memory of the receiver, MB", "memory", ".0f"),
        )
    )
    REPORT.write_text(
        f"""# Hostile connections

Last output of `python -m tests.faults.hostile --seconds {options.seconds:g}`.

{_N_NOT_ADMITTED} connections from {len(_NOT_ADMITTED)} addresses that are not admitted
({", ".join(BEHAVIOURS)}) and {_N_ADMITTED} from one that is, which stop in the middle of a data
set. Each is opened again half a second after the receiver has closed it:
{found["hostile connections"]:.0f} connections in all. Everything runs on the same two cores.

| | without them | with them |
|---|---|---|
{rows}

Memory grew by {100 * growth:.1f} %. Every instance that was sent has its row:
{found["stored before"] + found["stored during"]:.0f} sent, {found["rows"]:.0f} rows (both senders
use the same UIDs, so the first instances of the second one are duplicates).
"""
    )
    print(REPORT.read_text())  # noqa: T201


if __name__ == "__main__":
    main()
