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
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, TextIO

import numpy as np
import pydicom

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


@dataclass(frozen=True, slots=True)
class Image:
    """An instance to send."""

    study_uid: str
    uid: str
    data_set: bytes


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
                self._store_all(journal, images(study_uid, range(n)))
                if self._chance.random() < 0.1:
                    self._store_all(journal, images(study_uid, range(1)))  # again
                if self._chance.random() < 0.1:
                    late.append((study_uid, n))
                if late and self._chance.random() < 0.1:
                    uid, following = late.pop(0)
                    self._store_all(journal, images(uid, range(following, following + 1)))

    def _store_all(self, journal: TextIO, waiting: list[Image]) -> None:
        """Store the images; return when all are acknowledged, whatever it takes."""
        while waiting:
            try:
                self._associate_and_store(journal, waiting)
            except (OSError, AssertionError):
                self.statuses["connection lost"] += 1
                time.sleep(0.2)

    def _associate_and_store(self, journal: TextIO, waiting: list[Image]) -> None:
        address, port = self._chance.choice(self._addresses)
        with ul.peer(port, 15, address) as peer:
            peer.associate(_CONTEXTS)
            while waiting:
                image = waiting[0]
                peer.send(ul.store(1, image.data_set, image.uid))
                status = peer.status()
                self.statuses[f"0x{status:04X}"] += 1
                if status:
                    time.sleep(0.2)
                    continue
                sha256 = hashlib.sha256(image.data_set).hexdigest()
                values = {"study_uid": image.study_uid, "uid": image.uid, "sha256": sha256}
                journal.write(json.dumps(values) + "\n")
                journal.flush()
                os.fsync(journal.fileno())
                waiting.pop(0)
            peer.send(ul.RELEASE)
            peer.receive()


class SenderOfScans(Sender):
    """Sends copies of one synthetic scan, which models can grade.

    Parameters
    ----------
    scan : Path
        Folder of Part 10 files.
    *arguments, **options
        Of `Sender`.
    """

    def __init__(self, scan: Path, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._data_sets = [pydicom.dcmread(path) for path in sorted(scan.rglob("*.dcm"))]

    def run(self) -> None:
        studies = 0
        with self._journal.open("a") as journal:
            while not self.stopped.wait(self._pause_s):
                studies += 1
                self._store_all(journal, self._copy(f"{self._prefix}{studies:06}"))

    def _copy(self, study_uid: str) -> list[Image]:
        copies = []
        for number, data_set in enumerate(self._data_sets):
            uid = f"{study_uid}.1.{number}"
            data_set.StudyInstanceUID, data_set.SeriesInstanceUID = study_uid, f"{study_uid}.1"
            data_set.SOPInstanceUID = uid
            data_set.PatientName, data_set.PatientID = "Canary^Patient", "CANARY-7"
            data_set.AccessionNumber = "A1"
            encoded = BytesIO()
            pydicom.dcmwrite(
                encoded, pydicom.Dataset(data_set), implicit_vr=False, little_endian=True
            )
            copies.append(Image(study_uid, uid, encoded.getvalue()))
        return copies


def images(study_uid: str, numbers: range) -> list[Image]:
    """Small images, which only a scripted worker grades."""
    made = []
    for number in numbers:
        uid, pixels = f"{study_uid}.1.{number}", np.full((48, 64), number, np.uint16)
        encoded = encoded_instance(uid, study_uid, pixels=pixels, accession_number="A1")
        made.append(Image(study_uid, uid, encoded))
    return made


def read_journals(folder: Path) -> Iterator[Acknowledged]:
    """Read what all senders noted."""
    for path in sorted(folder.glob("acknowledged-*.jsonl")):
        for line in path.read_text().splitlines():
            yield Acknowledged(**json.loads(line))
