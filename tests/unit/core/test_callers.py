"""Entries of allow-lists, and what counts as one source."""

from __future__ import annotations

import ipaddress

import pytest

from core.callers import addresses_of, parse_caller, source_of
from core.errors import Unavailable


def test_caller_rules() -> None:
    rule = parse_caller("PACS@192.0.2.0/24")
    assert rule.lists("PACS ", "192.0.2.7")
    assert rule.lists("PACS", "::ffff:192.0.2.7")
    assert not rule.lists("PACS", "198.51.100.7")
    assert not rule.lists("OTHER", "192.0.2.7")
    assert rule.is_proven_by(frozenset())
    assert parse_caller("*@127.0.0.0/8").lists("ANY", "127.0.0.1")
    bound = parse_caller("PACS@192.0.2.0/24?certificate=Pacs.Example")
    assert bound.is_proven_by({"pacs.example", "192.0.2.7"})
    assert not bound.is_proven_by({"other.example"})
    assert not bound.is_proven_by(frozenset())


def test_one_host_is_one_source_whatever_addresses_it_uses() -> None:
    assert source_of("192.0.2.7") == source_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert source_of("2001:db8::7") == source_of("2001:db8::ffff:8") == "2001:db8::/64"
    assert source_of("2001:db8:0:1::7") == "2001:db8:0:1::/64"


def test_an_address_that_is_listed_alone_counts_alone() -> None:
    rules = [parse_caller("PACS@2001:db8::7"), parse_caller("*@2001:db8::/32")]
    assert source_of("2001:db8::7", rules) == "2001:db8::7"
    assert source_of("2001:db8::8", rules) == "2001:db8::/64"


def test_addresses_of_names_and_numbers() -> None:
    assert addresses_of("::ffff:192.0.2.7") == {ipaddress.IPv4Address("192.0.2.7")}
    assert ipaddress.IPv4Address("127.0.0.1") in addresses_of("localhost")
    for unknown in ("unknown.invalid", "a" * 300, ".."):
        with pytest.raises(Unavailable, match="cannot be resolved"):
            addresses_of(unknown)
