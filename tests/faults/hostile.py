"""Strangers at the door while real senders work: ``python -m tests.faults.hostile --seconds 60``.

Two hundred connections, from twenty addresses and from one that is admitted, do what no sender
does: say nothing, drip bytes, announce PDUs of gigabytes, stop in the middle of a request or of a
data set. Whatever the receiver closes is opened again at once. Meanwhile one sender stores
instances, and another asks for C-ECHO on one new association after the other. Writes
``docs/results/hostile.md``.
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
_STRANGERS: Final = tuple(f"127.0.1.{number}" for number in range(1, 21))
_ADMITTED: Final = "127.0.0.1"
_N_STRANGERS, _N_ADMITTED = 190, 10
_REQUEST: Final = ul.associate_rq(_STORE)

HABITS: Final = ("silent", "drip", "gigabytes", "half a request", "rubbish")
"""Of those who are not admitted; those who are break off in the midst of data sets."""


class Hostile(threading.Thread):
    """One that holds a connection for as long as it can, and then the next.

    Parameters
    ----------
    port : int
    address : str
        Where it comes from.
    habit : str
    """

    def __init__(self, port: int, address: str, habit: str) -> None:
        super().__init__(daemon=True)
        self._port, self._address, self._habit = port, address, habit
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
            elif self._habit == "gigabytes":
                peer.send(struct.pack(">BxL", ul.ASSOCIATE_RQ, 0xFFFFFFF0) + bytes(100))
            elif self._habit == "half a request":
                peer.send(_REQUEST[: len(_REQUEST) // 2])
            elif self._habit == "rubbish":
                peer.send(bytes(range(256)))
            connection.settimeout(1.0)
            for number in itertools.count():
                if self.stopped.is_set():
                    return
                if self._habit == "drip":
                    peer.send(_REQUEST[number : number + 1] or b"\0")
                try:
                    if not connection.recv(4096):
                        return
                except TimeoutError:
                    pass


class Storing(threading.Thread):
    """A sender as it should be."""

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
                answer = peer.response()
                assert answer is not None
                assert answer.status == 0
                self.n_stored += 1
            peer.send(ul.RELEASE)


def echo_seconds(port: int) -> float:
    """How long a C-ECHO takes, with its connection and association."""
    began = time.monotonic()
    with ul.peer(port, 30) as peer:
        peer.associate(_ECHO)
        peer.send(ul.echo(1))
        answer = peer.response()
        assert answer is not None
        assert answer.status == 0
        peer.send(ul.RELEASE)
        peer.receive()
    return time.monotonic() - began


def besiege(folder: Path, seconds: float) -> dict[str, float]:
    """Run the siege on a receiver of its own and return what was measured."""
    with run_receiver(
        folder, log_level="ERROR", callers=f"*@{_ADMITTED}", network_timeout_s="10"
    ) as receiver:
        process = psutil.Process(receiver.process.pid)
        before = _measure(receiver.port, process, seconds / 3)
        hostiles = [
            Hostile(receiver.port, address, habit)
            for address, habit, _ in zip(
                itertools.cycle(_STRANGERS), itertools.cycle(HABITS), range(_N_STRANGERS)
            )
        ] + [Hostile(receiver.port, _ADMITTED, "broken off") for _ in range(_N_ADMITTED)]
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
    """Run the siege and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = besiege(Path(folder) / "data", options.seconds)
    growth = found["memory during"] / found["memory before"] - 1
    rows = "\n".join(
        f"| {name} | {found[f'{key} before']:{form}} | {found[f'{key} during']:{form}} |"
        for name, key, form in (
            ("C-ECHO with its association: how many", "echoes", ".0f"),
            ("median, s", "median", ".3f"),
            ("99 %, s", "p99", ".3f"),
            ("slowest, s", "slowest", ".3f"),
            ("instances stored a second by one sender", "stored a second", ".0f"),
            ("memory of the receiver, MB", "memory", ".0f"),
        )
    )
    REPORT.write_text(
        f"""# Hostile connections at the door

Last output of `python -m tests.faults.hostile --seconds {options.seconds:g}`.

{_N_STRANGERS} connections from {len(_STRANGERS)} addresses that are not admitted
({", ".join(HABITS)}) and {_N_ADMITTED} from one that is, which stop in the midst of a data set;
whatever the receiver closes is opened again half a second later, {found["hostile connections"]:.0f}
connections in all. All on the same two cores as the receiver.

| | without them | beside them |
|---|---|---|
{rows}

Memory grew by {100 * growth:.1f} %. Every instance that was sent has its row:
{found["stored before"] + found["stored during"]:.0f} sent, {found["rows"]:.0f} rows (senders begin
anew with the same UIDs: the second sender's first instances are duplicates).
"""
    )
    print(REPORT.read_text())  # noqa: T201


if __name__ == "__main__":
    main()
