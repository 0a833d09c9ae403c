"""Archives that misbehave: they refuse, hang up, fall silent, and lose what they stored."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from tests.support.servers.destination import Commits, Fault, ScriptedDestination

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pynetdicom import evt

_REFUSED: Final = 0xA700
_FAULTS: Final[dict[str, int | Fault]] = {
    "refuses a C-STORE (0xA700)": _REFUSED,
    "hangs up": Fault.HANG_UP,
    "stores and hangs up": Fault.STORE_AND_HANG_UP,
    "stores and falls silent": Fault.STORE_AND_FALL_SILENT,
}
LOSES: Final = "loses what it stored, before it is asked to commit"


class Archive(ScriptedDestination):
    """A destination of results.

    Parameters
    ----------
    seed : int
    share : float
        Of the C-STOREs that end in a fault while it `misbehaves`.
    loses : bool
        Whether some objects are lost: only a destination with storage commitment is told.
    reports_to : tuple of (str, int), optional
        AE title and port on loopback to which commitments are reported; by default on the
        association that asks.
    """

    def __init__(
        self,
        seed: int,
        *,
        share: float = 0.15,
        loses: bool = False,
        reports_to: tuple[str, int] | None = None,
    ) -> None:
        super().__init__()
        self._chance = random.Random(seed)
        self._share, self._loses = share, loses
        self._lock = threading.Lock()
        self.misbehaves = True
        self.faults: Counter[str] = Counter()
        self.contents: dict[str, set[str]] = defaultdict(set)
        """SHA-256 of every data set that arrived under a SOP Instance UID."""
        self.committed: set[str] = set()
        """SOP Instance UIDs that were reported as committed."""
        self._reports = Commits.ELSEWHERE if reports_to else Commits.HERE
        if reports_to:
            self.reports_to = reports_to

    def store(self, event: evt.Event) -> int:
        """Note the content, then handle the C-STORE."""
        request = event.request
        data_set = request.DataSet.getvalue()  # type: ignore[union-attr]
        uid = str(request.AffectedSOPInstanceUID)  # type: ignore[union-attr]
        self.contents[uid].add(hashlib.sha256(data_set).hexdigest())
        status = super().store(event)
        with self._lock:
            lost = self.misbehaves and self._loses and self._chance.random() < self._share
        # What it has committed to it keeps, also when that arrives again.
        if lost and uid not in self.committed and self.data_sets.pop(uid, None) is not None:
            self.faults[LOSES] += 1
        return status

    def next_answer(self) -> int | Fault:
        """Success, or one of the faults."""
        with self._lock:
            if not self.misbehaves or self._chance.random() >= self._share:
                return 0x0000
            name = self._chance.choice(sorted(_FAULTS))
        self.faults[name] += 1
        return _FAULTS[name]

    def act(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """Note what is committed to, then report it."""
        for item in event.action_information.ReferencedSOPSequence:
            if item.ReferencedSOPInstanceUID in self.data_sets:
                self.committed.add(str(item.ReferencedSOPInstanceUID))
        return super().act(event)

    def next_commitment(self) -> int | Commits:
        """Report in the one way that reaches the node."""
        return self._reports
