"""Negotiation: what an A-ASSOCIATE-RQ is answered with, and that no request costs much."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import AllTransferSyntaxes
from pynetdicom.pdu import A_ASSOCIATE_AC

from core.commitment import SOP_CLASS_UID as COMMITMENT
from receiver.contexts import supported_contexts
from receiver.negotiation import (
    MAX_ITEMS,
    MAX_SYNTAXES,
    MAXIMUM_LENGTH,
    Acceptance,
    Context,
    MalformedRequest,
    accept,
    read_request,
)
from receiver.spool import IMPLEMENTATION_CLASS_UID
from tests.support.clients import upper_layer as ul

SUPPORTED = supported_contexts("refuse")
APPLICATION_CONTEXT = ul.item(0x10, ul.APPLICATION_CONTEXT.encode())
MAXIMUM = ul.item(0x51, struct.pack(">L", 16384))


def request_pdu(*items: bytes, version: int = 1) -> bytes:
    """An A-ASSOCIATE-RQ with any variable items."""
    titles = b"EPVSNODE".ljust(16) + b"PACS".ljust(16)
    head = struct.pack(">Hxx", version) + titles + bytes(32)
    return ul.pdu(ul.ASSOCIATE_RQ, head + b"".join(items))


def context(context_id: int, abstract_syntax: str, *transfer_syntaxes: str) -> bytes:
    syntaxes = b"".join(ul.item(0x40, each.encode()) for each in transfer_syntaxes)
    proposed = ul.item(0x30, abstract_syntax.encode()) + syntaxes
    return ul.item(0x20, struct.pack(">Bxxx", context_id) + proposed)


def role(sop_class: str, scu: int, scp: int) -> bytes:
    uid = sop_class.encode()
    return ul.item(0x54, struct.pack(">H", len(uid)) + uid + bytes([scu, scp]))


def answer(*items: bytes) -> tuple[Acceptance, Any]:
    acceptance = accept(read_request(request_pdu(APPLICATION_CONTEXT, *items)), SUPPORTED)
    decoded = A_ASSOCIATE_AC()
    decoded.decode(acceptance.pdu)
    return acceptance, decoded


MR = context(1, ul.MR_IMAGE, ul.EXPLICIT)


def test_the_answer_names_the_results_the_receiver_and_its_maximum_length() -> None:
    acceptance, decoded = answer(
        MR, context(3, "1.2.3", ul.EXPLICIT), context(5, ul.VERIFICATION, "1.2.3.4"), MAXIMUM
    )

    assert acceptance.contexts == {1: Context(ul.MR_IMAGE, ul.EXPLICIT)}
    assert acceptance.rejected == {
        "1.2.3": "abstract-syntax-not-supported",
        ul.VERIFICATION: "transfer-syntaxes-not-supported",
    }
    assert [(c.context_id, c.result) for c in decoded.presentation_context] == [
        (1, 0x00),
        (3, 0x03),
        (5, 0x04),
    ]
    assert decoded.user_information.maximum_length == MAXIMUM_LENGTH
    assert decoded.user_information.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert decoded.user_information.implementation_version_name.startswith("epvs-node")


def test_optional_and_unknown_items_are_passed_over_and_left_unanswered() -> None:
    user_information = ul.item(
        0x50,
        MAXIMUM
        + ul.item(0x53, struct.pack(">HH", 8, 8))  # asynchronous operations window
        + ul.item(0x56, b"broken")  # SOP class extended negotiation
        + ul.item(0x58, b"\x02\x01\x00\x04user\x00\x04word")  # user identity
        + ul.item(0x7F, b"of a future edition"),
    )
    acceptance, decoded = answer(ul.item(0x99, b"unknown"), MR, user_information)

    assert set(acceptance.contexts) == {1}
    assert [type(each).__name__ for each in decoded.user_information.user_data] == [
        "MaximumLengthSubItem",
        "ImplementationClassUIDSubItem",
        "ImplementationVersionNameSubItem",
    ]
    assert read_request(request_pdu(MR, user_information)).max_length == 16384


@pytest.mark.parametrize(
    ("proposed", "accepted"), [(None, True), ((0, 1), True), ((1, 1), True), ((1, 0), False)]
)
def test_an_archive_may_report_commitments_as_the_scp(
    proposed: tuple[int, int] | None, accepted: bool
) -> None:
    roles = role(COMMITMENT, *proposed) if proposed else b""
    acceptance, decoded = answer(
        context(1, COMMITMENT, ul.IMPLICIT), ul.item(0x50, MAXIMUM + roles)
    )

    assert bool(acceptance.contexts) is accepted
    if proposed and accepted:
        (selected,) = decoded.user_information.role_selection.values()
        assert (selected.scu_role, selected.scp_role) == (False, True)


def test_version_and_application_context_are_told_apart() -> None:
    assert read_request(request_pdu(APPLICATION_CONTEXT, version=3)).has_known_version
    assert not read_request(request_pdu(APPLICATION_CONTEXT, version=2)).has_known_version
    assert read_request(request_pdu(APPLICATION_CONTEXT)).has_known_application_context
    for items in ([], [ul.item(0x10, b"1.2.3")]):
        assert not read_request(request_pdu(*items)).has_known_application_context


SOUND = request_pdu(APPLICATION_CONTEXT, MR, ul.item(0x50, MAXIMUM))
MALFORMED = {
    "cut in the fixed fields": SOUND[:60],
    "cut in an item": SOUND[:-3],
    "cut in the header of an item": SOUND + b"\x10\0",
    "no calling AE title": SOUND.replace(b"PACS", b"    "),
    "AE title that is not text": SOUND.replace(b"PACS", b"\xff\xfe\xfd\xfc"),
    "item longer than its parent": request_pdu(ul.item(0x50, b"\x51\0\0\x40\0\0\0\0")),
    "even context ID": request_pdu(context(2, ul.MR_IMAGE, ul.EXPLICIT)),
    "one context ID twice": request_pdu(MR, context(1, ul.VERIFICATION, ul.IMPLICIT)),
    "context without transfer syntax": request_pdu(context(1, ul.MR_IMAGE)),
    "context without abstract syntax": request_pdu(
        ul.item(0x20, b"\x01\0\0\0" + ul.item(0x40, ul.EXPLICIT.encode()))
    ),
    "context without anything": request_pdu(ul.item(0x20, b"")),
    "abstract syntax over 64 characters": request_pdu(context(1, "1." * 40 + "1", ul.EXPLICIT)),
    "role selection cut off": request_pdu(MR, ul.item(0x50, ul.item(0x54, b"\0\x40\x31"))),
    "maximum length of two bytes": request_pdu(MR, ul.item(0x50, ul.item(0x51, b"\0\0"))),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_a_request_is_malformed(name: str) -> None:
    with pytest.raises(MalformedRequest):
        read_request(MALFORMED[name])


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(6, len(SOUND) - 1), st.integers(0, 255)), max_size=6))
def test_damage_ends_as_an_answer_or_as_malformed(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(SOUND)
    for position, value in changes:
        damaged[position] = value
    try:
        request = read_request(bytes(damaged))
    except MalformedRequest:
        return
    assert accept(request, SUPPORTED).pdu[0] == ul.ASSOCIATE_AC


def test_every_context_with_every_transfer_syntax_is_accepted() -> None:
    syntaxes = [str(uid) for uid in AllTransferSyntaxes]
    contexts = [context(number, ul.MR_IMAGE, *syntaxes) for number in range(1, 256, 2)]
    acceptance, _ = answer(*contexts, ul.item(0x50, MAXIMUM))
    assert len(acceptance.contexts) == 128


TOO_MANY = {
    "items": request_pdu(ul.item(0x99, b"") * (MAX_ITEMS + 1)),
    "user items": request_pdu(*[ul.item(0x50, ul.item(0x51, bytes(4)) * 8000)] * 14),
    "transfer syntaxes": request_pdu(context(1, ul.MR_IMAGE, *["1.2"] * MAX_SYNTAXES)),
}


@pytest.mark.parametrize("name", TOO_MANY)
def test_more_items_than_any_sender_has_are_not_decoded(name: str) -> None:
    began = time.process_time()
    with pytest.raises(MalformedRequest):
        read_request(TOO_MANY[name])
    assert time.process_time() - began < 0.5
