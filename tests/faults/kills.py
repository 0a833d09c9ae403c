"""Kills the receiver in the middle of transfers: ``python -m tests.faults.kills --kills 1000``.

Several receivers run side by side. Each has a sender that repeats an instance until its status is
0x0000. Each receiver is killed (SIGKILL) after a random time and started again on the same data,
many times. In the end every instance answered with 0x0000 must have a row, and a file with the
content that was sent; half-written files must be gone. Writes ``docs/results/kills.md``.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import socket
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tests.support.builders.instances import encoded_instance
from tests.support.clients import upper_layer as ul
from tests.support.paths import ROOT
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import run_receiver

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT: Final = ROOT / "docs" / "results" / "kills.md"
_LONGEST_RUN_S: Final = 0.8
"""Longest run of a receiver, from its first connection on."""
_CONTEXTS: Final = {1: (ul.MR_IMAGE, [ul.EXPLICIT])}


class Sender:
    """Sends one instance after the other, and repeats each until it is stored.

    Parameters
    ----------
    port : int
    number : int
        Makes its UIDs differ from those of other senders.
    """

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._number = number
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.stored: dict[str, str] = {}
        """SHA-256 of the data set of every instance that was answered 0x0000."""
        self.answers: Counter[str] = Counter()
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current instance."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._associate_and_send()
            except (OSError, AssertionError):
                self.answers["connection lost"] += 1
                time.sleep(0.02)

    def _associate_and_send(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=30) as connection:
            peer = ul.Peer(connection)
            peer.associate(_CONTEXTS)
            while not self._stop.is_set():
                uid = f"2.25.9{self._number}{len(self.stored):07}"
                study = f"2.25.8{self._number}{len(self.stored) // 28:05}"
                data_set = encoded_instance(uid, study, pixels=_noise(len(self.stored)))
                peer.send(ul.store(1, data_set, uid))
                answer = peer.response()
                if answer is None:
                    raise ConnectionError("no answer")
                self.answers[f"0x{answer.status:04X}"] += 1
                if answer.status == 0:
                    self.stored[uid] = hashlib.sha256(data_set).hexdigest()
            peer.send(ul.RELEASE)


def kill_repeatedly(folder: Path, number: int, kills: int) -> tuple[Counter[str], list[str]]:
    """Kill one receiver `kills` times; return its statuses, and what is wrong in the end."""
    chance = random.Random(number)
    sender: Sender | None = None
    port = str(free_port())
    for _ in range(kills):
        with run_receiver(folder, log_level="WARNING", port=port) as receiver:
            sender = sender or Sender(int(port), number)
            time.sleep(chance.uniform(0.0, _LONGEST_RUN_S))
            receiver.process.send_signal(signal.SIGKILL)
            receiver.process.wait()
    assert sender is not None
    with run_receiver(folder, log_level="WARNING", port=port) as receiver:
        time.sleep(0.5)
        sender.stop()
        leftovers = list((receiver.spool / "tmp").glob("*/*"))
    wrong = _what_is_wrong(folder, sender)
    return sender.answers, [*wrong, *(f"left over: {path}" for path in leftovers)]


def _what_is_wrong(folder: Path, sender: Sender) -> list[str]:
    with closing(sqlite3.connect(folder / "epvs.sqlite")) as database:
        rows = {
            uid: (Path(path), sha256)
            for uid, path, sha256 in database.execute(
                "SELECT sop_instance_uid, path, sha256 FROM instances"
            )
        }
    wrong = []
    for uid, digest in sender.stored.items():
        if uid not in rows:
            wrong.append(f"no row: {uid}")
            continue
        path, sha256 = rows[uid]
        content = path.read_bytes() if path.exists() else b""
        head = 144 + int.from_bytes(content[140:144], "little")
        if hashlib.sha256(content).hexdigest() != sha256:
            wrong.append(f"file missing or damaged: {uid}")
        elif hashlib.sha256(content[head:]).hexdigest() != digest:
            wrong.append(f"other content than was sent: {uid}")
    return wrong


def _noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 4096, (192, 192), dtype=np.uint16)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--receivers", type=int, default=3)
    options = parser.parse_args(arguments)
    share = -(-options.kills // options.receivers)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(options.receivers) as pool:
        runs = [
            pool.submit(kill_repeatedly, Path(folder) / str(number), number, share)
            for number in range(options.receivers)
        ]
        results = [run.result() for run in runs]
    answers = sum((each for each, _ in results), Counter[str]())
    wrong = [problem for _, problems in results for problem in problems]
    REPORT.write_text(
        f"""# Killing the receiver in the middle of transfers

Last output of
`python -m tests.faults.kills --kills {options.kills} --receivers {options.receivers}`.

{options.receivers} receivers with a sender each, on SQLite, instances of 74 KB;
{share * options.receivers} times SIGKILL after 0 to {_LONGEST_RUN_S:g} s,
in {(time.monotonic() - began) / 60:.0f} minutes.

| | |
|---|---|
| answered `0x0000` | {answers["0x0000"]} |
| connections lost, or refused while the receiver was down | {answers["connection lost"]} |
| other statuses | {sum(answers.values()) - answers["0x0000"] - answers["connection lost"]} |
| answered `0x0000`, but without row, file or the content that was sent | **{len(wrong)}** |
"""
    )
    print(REPORT.read_text(), *wrong[:20], sep="\n")  # noqa: T201
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
