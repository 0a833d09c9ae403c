"""A flood of refusals makes few notes, and none is forgotten in the count."""

from __future__ import annotations

from receiver.throttle import Throttle


def test_one_note_in_an_interval_says_how_many_there_were() -> None:
    now = 0.0
    throttle = Throttle(60, lambda: now)
    assert [throttle.due("flood") for _ in range(3)] == [1, None, None]
    assert throttle.due("other") == 1
    now = 61.0
    assert throttle.due("flood") == 3
    assert throttle.due("flood") is None


def test_made_up_kinds_do_not_fill_the_memory() -> None:
    throttle = Throttle(60, lambda: 0.0)
    for number in range(5000):
        assert throttle.due(number) == 1
    assert throttle.due(4999) is None
    assert throttle.due(0) == 1  # forgotten
