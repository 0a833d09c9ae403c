"""Admission: the order of the checks, and the numbers of each refusal (PS3.8 table 9-21)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from core.callers import parse_caller
from receiver import admission
from receiver.admission import Refusal, refusal
from receiver.negotiation import Request

REQUEST = Request(
    calling_ae="PACS",
    called_ae="EPVSNODE",
    has_known_version=True,
    has_known_application_context=True,
    max_length=0,
    contexts=[],
    roles={},
)
CALLERS = ("PACS@192.0.2.0/24", "PROVEN@192.0.2.7?certificate=pacs.example")
SETTINGS: Any = SimpleNamespace(
    ae_title="EPVSNODE",
    max_associations=8,
    caller_quota=4,
    reserved_associations=1,
    caller_rules=[parse_caller(each) for each in CALLERS],
)
SITUATION: dict[str, Any] = {
    "peer_address": "192.0.2.7",
    "certificate_names": frozenset(),
    "has_room": True,
    "n_open": 0,
    "n_of_caller": 0,
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Refusal | None]] = {
    "admitted": ({}, {}, None),
    "version": ({"has_known_version": False}, {}, admission.PROTOCOL_VERSION_NOT_SUPPORTED),
    "application context": (
        {"has_known_application_context": False},
        {},
        admission.APPLICATION_CONTEXT_NOT_SUPPORTED,
    ),
    "title": ({"calling_ae": "OTHER"}, {}, admission.CALLER_NOT_ADMITTED),
    "address": ({}, {"peer_address": "198.51.100.1"}, admission.CALLER_NOT_ADMITTED),
    "no certificate": ({"calling_ae": "PROVEN"}, {}, admission.CALLER_NOT_PROVEN),
    "certificate": (
        {"calling_ae": "PROVEN"},
        {"certificate_names": frozenset({"pacs.example"})},
        None,
    ),
    "called title": ({"called_ae": "OTHER"}, {}, admission.CALLED_AE_NOT_RECOGNISED),
    "disk": ({}, {"has_room": False}, admission.DISK_BELOW_RESERVE),
    "last association": ({}, {"n_open": 7}, None),
    "last association of a caller that has one": (
        {},
        {"n_open": 7, "n_of_caller": 1},
        admission.REMAINING_RESERVED,
    ),
    "last but one": ({}, {"n_open": 6, "n_of_caller": 1}, None),
    "too many associations": ({}, {"n_open": 8}, admission.TOO_MANY_ASSOCIATIONS),
    "last of its quota": ({}, {"n_open": 3, "n_of_caller": 3}, None),
    "over its quota": ({}, {"n_open": 4, "n_of_caller": 4}, admission.TOO_MANY_OF_CALLER),
    # An unknown caller learns nothing of the state of the node.
    "unknown caller of a full disk": (
        {"calling_ae": "OTHER"},
        {"has_room": False, "n_open": 8},
        admission.CALLER_NOT_ADMITTED,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_who_is_admitted(name: str) -> None:
    request, situation, expected = CASES[name]
    found = refusal(SETTINGS, replace(REQUEST, **request), **(SITUATION | situation))
    assert found is expected
