"""Soak test: ``python -m tests.faults.soak --instances 100000``.

Four senders store the instances of small studies, with an association for each study. In the end
every instance must have its row and its file, and the receiver's memory must not have grown. Writes
``docs/results/soak.md``.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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

REPORT: Final = ROOT / "docs" / "results" / "soak.md"
_SENDERS: Final = 4
_PER_STUDY: Final = 28
_CONTEXTS: Final = {1: (ul.MR_IMAGE, [ul.EXPLICIT])}
_POINTS: Final = 10
"""Measurements of memory."""


def send_study(port: int, study: int) -> None:
    """Store the instances of one study on one association."""
    pixels = np.full((16, 16), study % 4096, np.uint16)
    with ul.peer(port, 60) as peer:
        peer.associate(_CONTEXTS)
        for number in range(_PER_STUDY):
            uid = f"2.25.1{study:06}{number:02}"
            peer.send(ul.store(1, encoded_instance(uid, f"2.25.2{study:06}", pixels=pixels), uid))
            answer = peer.response()
            assert answer is not None
            assert answer.status == 0, f"status 0x{answer.status:04X}"
        peer.send(ul.RELEASE)
        assert peer.ended_by() == ul.RELEASE_RP


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the soak test and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=100_000)
    options = parser.parse_args(arguments)
    n_studies = -(-options.instances // _PER_STUDY)
    memory: list[float] = []
    done, lock = 0, threading.Lock()
    with (
        tempfile.TemporaryDirectory() as folder,
        run_receiver(Path(folder), log_level="WARNING") as receiver,
        ThreadPoolExecutor(_SENDERS) as pool,
    ):
        process = psutil.Process(receiver.process.pid)

        def send(study: int) -> None:
            nonlocal done
            send_study(receiver.port, study)
            with lock:
                done += 1
                if done % max(1, n_studies // _POINTS) == 0:
                    memory.append(process.memory_info().rss / 1e6)
                    print(f"{done * _PER_STUDY} instances, {memory[-1]:.0f} MB", flush=True)  # noqa: T201

        began = time.monotonic()
        for _ in pool.map(send, range(n_studies)):
            pass
        seconds = time.monotonic() - began
        with closing(sqlite3.connect(receiver.data_dir / "epvs.sqlite")) as database:
            paths = [path for (path,) in database.execute("SELECT path FROM instances")]
        n_files = sum(Path(path).exists() for path in set(paths))
        warnings = receiver.log.read_text().count("\n")
        n_threads = process.num_threads()
    sent = n_studies * _PER_STUDY
    row = " | ".join(f"{value:.0f}" for value in memory)
    REPORT.write_text(
        f"""# Soak test: many instances through one receiver

Last output of `python -m tests.faults.soak --instances {options.instances}`.

{sent} instances of {n_studies} studies from {_SENDERS} senders, with an association for each study,
on SQLite, in {seconds / 60:.0f} minutes ({sent / seconds:.0f} a second; the senders, in Python, ran
on the same two cores).

| | |
|---|---|
| answered `0x0000` | {sent} |
| rows | {len(paths)} |
| files | {n_files} |
| lines of warnings in the log | {warnings} |
| threads at the end | {n_threads} |

Memory of the receiver in MB after each tenth: {row}
"""
    )
    print(REPORT.read_text())  # noqa: T201
    if not len(paths) == n_files == sent:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
