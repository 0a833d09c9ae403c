"""Pending connections are limited by address and by time, and do not affect other addresses."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.support.clients import upper_layer as ul
from tests.support.servers.receiver import run_receiver, wait_until

if TYPE_CHECKING:
    from pathlib import Path

ECHO = {1: (ul.VERIFICATION, [ul.IMPLICIT])}


def test_an_address_may_hold_a_limited_number_of_pending_connections(tmp_path: Path) -> None:
    with run_receiver(tmp_path, max_pending_connections="3", network_timeout_s="60") as receiver:
        # The connection that checked whether the receiver has started may still be open.
        wait_until(lambda: "listening" in receiver.log.read_text() and can_echo(receiver.port))
        with ExitStack() as stack:
            held = [stack.enter_context(ul.peer(receiver.port)) for _ in range(3)]
            with ul.peer(receiver.port) as one_too_many:
                assert one_too_many.receive() is None
            # Another address of this machine is not affected.
            with socket.create_connection(
                ("127.0.0.1", receiver.port), 10, source_address=("127.0.0.2", 0)
            ) as connection:
                other = ul.Peer(connection)
                other.send(ul.associate_rq(ECHO))
                answer = other.receive()
                assert answer is not None
                assert answer.kind == ul.ASSOCIATE_RJ  # not admitted, but served
            # An associated connection is not pending any more.
            held[0].associate(ECHO)
            stack.enter_context(ul.peer(receiver.port)).associate(ECHO)
        wait_until(lambda: can_echo(receiver.port))
        (row,) = receiver.wait_for_audit("connection-refused")
        assert row.detail["reason"] == "too-many-connections"


def can_echo(port: int) -> bool:
    with ul.peer(port) as peer:
        peer.send(ul.associate_rq(ECHO))
        answer = peer.receive()
        return answer is not None and answer.kind == ul.ASSOCIATE_AC


def test_a_missing_or_too_long_request_closes_the_connection(tmp_path: Path) -> None:
    with run_receiver(tmp_path, network_timeout_s="1") as receiver:
        beginning = ul.associate_rq(ECHO)[:40]
        for said in (b"", beginning):
            with ul.peer(receiver.port) as peer:
                peer.send(said)
                while peer.receive() is not None:  # an A-ABORT may come first
                    pass
        with ul.peer(receiver.port) as peer:
            peer.send(struct.pack(">BxL", ul.ASSOCIATE_RQ, 0xFFFF_FFF0))
            assert peer.ended_by() == ul.ABORT
        rows = receiver.wait_for_audit("connection-refused", 2)  # repeated ones are one event
        reasons = [row.detail["reason"] for row in rows]
        assert reasons == ["no-request-in-time", "pdu-too-long"]
