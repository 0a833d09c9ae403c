"""Receiving: refusals in any number make few notes."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

NOTE_INTERVAL_S: Final = 60.0
"""Refusals of one kind and address within this time are one audit row."""
_MAX_KEYS: Final = 1000


class Throttle:
    """Lets one note of a kind through in a while, so that a flood does not fill the audit trail.

    Parameters
    ----------
    interval_s : float
    clock : callable, optional
        Seconds that never go back.
    """

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._last: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def due(self, kind: Hashable) -> int | None:
        """How many of this `kind` there were since the last note, this one included.

        Returns
        -------
        int or None
            None where the last note was less than the interval ago: this one is counted only.
        """
        with self._lock:
            now = self._clock()
            noted_at, withheld = self._last.get(kind, (float("-inf"), 0))
            if now - noted_at < self._interval_s:
                self._last[kind] = (noted_at, withheld + 1)
                return None
            self._last[kind] = (now, 0)
            self._last.move_to_end(kind)
            while len(self._last) > _MAX_KEYS:  # whoever can make up kinds cannot fill the memory
                self._last.popitem(last=False)
            return withheld + 1
