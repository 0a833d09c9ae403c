"""Senders: each stores one study after the other, and notes durably what was acknowledged."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tests.support.builders.instances import encoded_instance
from tests.support.clients import upper_layer as ul

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_CONTEXTS: Final = {1: (ul.MR_IMAGE, [ul.EXPLICIT])}
CANARY: Final = ("CANARY", "Canary^Patient")
"""Patient ID and name of every study: no log may have them."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An instance that was answered 0x0000; `sha256` is that of its data set."""

    study_uid: str
    uid: str
    sha256: str


class Sender(threading.Thread):
    """Sends studies of two to five images until it is told to stop, and repeats what failed.

    Some studies get a late image, which opens another revision, and some images are sent twice.

    Parameters
    ----------
    number : int
        Makes its UIDs differ from those of other senders.
    seed : int
    addresses : sequence of (str, int)
        Receivers; one is chosen for each association.
    journal : Path
        Gets one JSON line for each acknowledged instance, before the next is sent.
    pause_s : float
        Between two studies.
    """

    def __init__(
        self,
        number: int,
        seed: int,
        addresses: Sequence[tuple[str, int]],
        journal: Path,
        pause_s: float,
    ) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self._chance = random.Random(f"{seed}-{number}")
        self._prefix = f"2.25.7{seed}9{number}"
        self._addresses, self._journal, self._pause_s = addresses, journal, pause_s
        self.stopped = threading.Event()
        self.statuses: Counter[str] = Counter()

    def run(self) -> None:
        studies = 0
        late: list[tuple[str, int]] = []
        with self._journal.open("a") as journal:
            while not self.stopped.wait(self._pause_s):
                studies += 1
                study_uid, n = f"{self._prefix}{studies:06}", self._chance.randint(2, 5)
                self._store_all(journal, study_uid, range(n))
                if self._chance.random() < 0.1:
                    self._store_all(journal, study_uid, range(1))  # again
                if self._chance.random() < 0.1:
                    late.append((study_uid, n))
                if late and self._chance.random() < 0.1:
                    uid, following = late.pop(0)
                    self._store_all(journal, uid, range(following, following + 1))

    def _store_all(self, journal: Any, study_uid: str, numbers: range) -> None:
        """Store the images; return when all are acknowledged, whatever it takes."""
        waiting = [*numbers]
        while waiting:
            try:
                self._associate_and_store(journal, study_uid, waiting)
            except (OSError, AssertionError):
                self.statuses["connection lost"] += 1
                time.sleep(0.2)

    def _associate_and_store(self, journal: Any, study_uid: str, waiting: list[int]) -> None:
        address, port = self._chance.choice(self._addresses)
        with ul.peer(port, 15, address) as peer:
            peer.associate(_CONTEXTS)
            while waiting:
                uid = f"{study_uid}.1.{waiting[0]}"
                data_set = _encode(uid, study_uid, waiting[0])
                peer.send(ul.store(1, data_set, uid))
                status = peer.status()
                self.statuses[f"0x{status:04X}"] += 1
                if status:
                    time.sleep(0.2)
                    continue
                sha256 = hashlib.sha256(data_set).hexdigest()
                json.dump({"study_uid": study_uid, "uid": uid, "sha256": sha256}, journal)
                journal.write("\n")
                journal.flush()
                os.fsync(journal.fileno())
                waiting.pop(0)
            peer.send(ul.RELEASE)
            peer.receive()


def _encode(uid: str, study_uid: str, number: int) -> bytes:
    pixels = np.full((48, 64), number, np.uint16)
    return encoded_instance(uid, study_uid, pixels=pixels, accession_number="A1")


def read_journals(folder: Path) -> Iterator[Acknowledged]:
    """Read what all senders noted."""
    for path in sorted(folder.glob("acknowledged-*.jsonl")):
        for line in path.read_text().splitlines():
            yield Acknowledged(**json.loads(line))
