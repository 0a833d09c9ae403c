"""Limits of pending connections: by address, and in all."""

from __future__ import annotations

from core.callers import parse_caller
from receiver.listener import Pending, PendingConnections

LISTED = [parse_caller("PACS@192.0.2.0/24"), parse_caller("MR@2001:db8::7")]


def begin(pending: PendingConnections, address: str) -> Pending:
    begun = pending.begin(address)
    assert isinstance(begun, Pending), begun
    return begun


def test_an_address_may_hold_a_few() -> None:
    pending = PendingConnections(2, 100, LISTED)
    first = begin(pending, "192.0.2.1")
    begin(pending, "::ffff:192.0.2.1")
    assert pending.begin("192.0.2.1") == "too-many-connections"
    begin(pending, "192.0.2.2")
    for _ in range(2):  # it counts once
        first.end()
    begin(pending, "192.0.2.1")
    assert pending.begin("192.0.2.1") == "too-many-connections"


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    pending = PendingConnections(1, 100, LISTED)
    begin(pending, "2001:db8::1")
    assert pending.begin("2001:db8::2") == "too-many-connections"
    begin(pending, "2001:db8::7")  # listed by itself


def test_strangers_and_callers_are_limited_apart() -> None:
    pending = PendingConnections(10, 3, LISTED)
    strangers = [begin(pending, f"198.51.100.{number}") for number in range(3)]
    assert pending.begin("198.51.100.9") == "too-many-connections-in-all"
    for number in range(3):
        begin(pending, f"192.0.2.{number}")
    assert pending.begin("192.0.2.9") == "too-many-connections-in-all"
    strangers[0].end()
    begin(pending, "198.51.100.9")
    assert pending.begin("198.51.100.8") == "too-many-connections-in-all"
