"""Rate limit for the audit events that anyone who reaches the port can cause."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S: Final = 60.0
"""Equal events within this time become one audit event."""
_MAX_KEYS: Final = 1000


class AuditLimiter:
    """Appends at most one audit event of a kind in each interval, with how often it happened.

    Parameters
    ----------
    append : callable
        Appends an audit event: its name, then its details by keyword.
    interval_s : float, optional
    clock : callable, optional
        Seconds that never go back.
    """

    def __init__(
        self,
        append: Callable[..., None],
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._append = append
        self._interval_s = interval_s
        self._clock = clock
        self._last: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def append(
        self, event: str, *, reason: str, peer_address: str, detail: str = "", calling_ae: str = ""
    ) -> None:
        """Append an audit event unless one of this kind was appended less than an interval ago.

        Events are of one kind if event, reason, address and calling AE title are equal. The detail
        ``times`` counts those since the last that was appended, this one included.
        """
        times = self._due((event, reason, peer_address, calling_ae))
        if times is None:
            return
        optional = {"detail": detail, "calling_ae": calling_ae}
        self._append(
            event,
            reason=reason,
            peer_address=peer_address,
            times=times,
            **{name: value for name, value in optional.items() if value},
        )

    def _due(self, kind: tuple[str, ...]) -> int | None:
        with self._lock:
            now = self._clock()
            appended_at, withheld = self._last.get(kind, (float("-inf"), 0))
            if now - appended_at < self._interval_s:
                self._last[kind] = (appended_at, withheld + 1)
                return None
            self._last[kind] = (now, 0)
            self._last.move_to_end(kind)
            while len(self._last) > _MAX_KEYS:  # made-up AE titles must not fill the memory
                self._last.popitem(last=False)
            return withheld + 1
