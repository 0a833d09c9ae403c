"""A flood of refusals makes few audit events, and each is counted."""

from __future__ import annotations

from typing import Any

from receiver.audit_limiter import AuditLimiter


class Events:
    """The audit events appended, and a clock set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.appended: list[tuple[str, dict[str, Any]]] = []
        self.limiter = AuditLimiter(self._append, 60, lambda: self.now)

    def _append(self, event: str, **detail: Any) -> None:
        self.appended.append((event, detail))

    def refuse(self, address: str, **optional: str) -> None:
        self.limiter.append("refused", reason="flood", peer_address=address, **optional)


def test_one_event_in_an_interval_counts_those_before_it() -> None:
    events = Events()
    for _ in range(3):
        events.refuse("192.0.2.1")
    events.refuse("192.0.2.2", detail="d", calling_ae="PACS")
    events.now = 61.0
    events.refuse("192.0.2.1")
    events.refuse("192.0.2.1")

    first = {"reason": "flood", "peer_address": "192.0.2.1"}
    other = {"reason": "flood", "peer_address": "192.0.2.2", "detail": "d", "calling_ae": "PACS"}
    assert events.appended == [
        ("refused", {**first, "times": 1}),
        ("refused", {**other, "times": 1}),
        ("refused", {**first, "times": 3}),
    ]


def test_made_up_keys_do_not_fill_the_memory() -> None:
    events = Events()
    for number in range(5000):
        events.refuse(str(number))
    assert len(events.appended) == 5000
    events.refuse("4999")
    assert len(events.appended) == 5000
    events.refuse("0")  # forgotten, so it counts as new
    assert len(events.appended) == 5001
