"""Attack: strangers fill the tables, and one caller takes or holds every association."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.builders.instances import encoded_instance
from tests.support.clients import upper_layer as ul
from tests.support.servers.receiver import ReceiverProcess, run_receiver, wait_until

if TYPE_CHECKING:
    from pathlib import Path

ECHO = {1: (ul.VERIFICATION, [ul.IMPLICIT])}
STORE = {1: (ul.MR_IMAGE, [ul.EXPLICIT])}
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
LISTED, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"


def connect(receiver: ReceiverProcess, address: str = LISTED) -> ul.Peer:
    connection = socket.create_connection(
        ("127.0.0.1", receiver.port), 20, source_address=(address, 0)
    )
    return ul.Peer(connection)


def ask(
    receiver: ReceiverProcess,
    address: str = LISTED,
    contexts: ul.Contexts = ECHO,
    *,
    calling_ae: str = "PACS",
    called_ae: str = "EPVSNODE",
) -> tuple[ul.Peer, int | None]:
    """Request an association; return the connection and the kind of the answer."""
    peer = connect(receiver, address)
    peer.send(ul.associate_rq(contexts, calling_ae=calling_ae, called_ae=called_ae))
    answer = peer.receive()
    return peer, answer.kind if answer else None


def take(
    receiver: ReceiverProcess, address: str, stack: ExitStack, calling_ae: str = "PACS"
) -> int:
    """Open associations, and hold them, until one is refused; return how many."""
    n_open = 0
    while True:
        peer, kind = ask(receiver, address, calling_ae=calling_ae)
        stack.callback(peer.connection.close)
        if kind != ul.ASSOCIATE_AC:
            return n_open
        n_open += 1


def test_strangers_with_made_up_titles_and_addresses_make_few_rows(tmp_path: Path) -> None:
    with run_receiver(tmp_path, callers="PACS@127.0.0.1") as receiver:
        for number in range(600):
            peer, kind = ask(receiver, f"127.0.2.{number % 200 + 1}", calling_ae=f"AE{number}")
            peer.connection.close()
            assert kind == ul.ASSOCIATE_RJ
        receiver.wait_for_refusals("association-refused", 600)

        assert 1 <= len(receiver.audit("association-refused")) <= 30
        # A known caller is still seen, however many strangers came before.
        peer, kind = ask(receiver, calling_ae="PACS", called_ae="OTHER")
        peer.connection.close()
        receiver.wait_for_refusals("association-refused", 601)
        rows = receiver.refusals("association-refused")
        assert len(rows) <= 520
        (row,) = [row for row in rows if row["calling_ae"] == "PACS"]
        assert (row["reason"], row["peer_address"]) == ("called-ae-not-recognised", LISTED)


def test_a_stranger_at_one_address_makes_few_rows(tmp_path: Path) -> None:
    with run_receiver(tmp_path, callers="PACS@127.0.0.1") as receiver:
        for number in range(100):
            peer, kind = ask(receiver, SECOND, calling_ae=f"AE{number}")
            peer.connection.close()
            assert kind == ul.ASSOCIATE_RJ
        receiver.wait_for_refusals("association-refused", 100)
        assert len(receiver.refusals("association-refused")) <= 9


def test_an_admitted_caller_makes_few_audit_rows(tmp_path: Path) -> None:
    """Also by contexts and instances that are refused."""
    contexts = {**STORE, 3: (CT_IMAGE, [ul.EXPLICIT])}
    with run_receiver(tmp_path) as receiver:
        for _ in range(50):
            peer, kind = ask(receiver, contexts=contexts)
            assert kind == ul.ASSOCIATE_AC
            peer.send(ul.store(1, b"\x08", "2.25.1"))
            assert peer.status() == 0xC010
            peer.connection.close()
        for event in ("contexts-refused", "instance-refused"):
            receiver.wait_for_refusals(event, 50)
            assert len(receiver.audit(event)) == 1
            (row,) = receiver.refusals(event)
            assert (row["calling_ae"], row["peer_address"]) == ("PACS", LISTED)


@pytest.mark.parametrize("n_processes", ["1", "2"])
def test_one_caller_cannot_take_every_association(tmp_path: Path, n_processes: str) -> None:
    with (
        run_receiver(
            tmp_path,
            callers="*@127.0.0.0/24",
            max_associations="16",
            receiver_processes=n_processes,
        ) as receiver,
        ExitStack() as stack,
    ):
        assert take(receiver, SECOND, stack) == 8  # half
        # A second greedy caller leaves some for those that have none.
        assert take(receiver, THIRD, stack, calling_ae="OTHER") == 6
        peer, kind = ask(receiver, LISTED)
        stack.callback(peer.connection.close)
        assert kind == ul.ASSOCIATE_AC

        receiver.wait_for_refusals("association-refused", 2)
        found = {
            row["peer_address"]: row["reason"] for row in receiver.refusals("association-refused")
        }
        assert found == {SECOND: "too-many-of-caller", THIRD: "remaining-reserved"}


def test_associations_that_end_no_longer_count(tmp_path: Path) -> None:
    with run_receiver(tmp_path, max_associations="4") as receiver:

        def n_taken() -> int:
            with ExitStack() as stack:
                return take(receiver, LISTED, stack)

        for _ in range(3):
            wait_until(lambda: n_taken() == 2)


def test_echo_does_not_hold_an_association(tmp_path: Path) -> None:
    with run_receiver(tmp_path, idle_timeout_s="1") as receiver:
        peer = connect(receiver)
        peer.associate(ECHO)
        began = time.monotonic()
        while time.monotonic() < began + 10:
            peer.send(ul.echo(1))
            if not isinstance(answer := peer.receive_message(), ul.Response):
                break
            time.sleep(0.2)
        assert isinstance(answer, ul.Pdu)
        assert answer.kind == ul.ABORT
        assert 1 <= time.monotonic() - began < 5
        receiver.wait_for_refusals("association-aborted", 1)
        (row,) = receiver.refusals("association-aborted")
        assert row["reason"] == "nothing-stored"


def test_a_data_set_without_end_that_is_not_stored_does_not_hold_an_association(
    tmp_path: Path,
) -> None:
    with run_receiver(tmp_path, idle_timeout_s="1") as receiver:
        peer = connect(receiver)
        peer.associate(ECHO)
        peer.send(ul.p_data(ul.pdv(1, ul.COMMAND | ul.LAST, ul.command(ul.C_ECHO_RQ, 1))))
        began = time.monotonic()
        try:
            while time.monotonic() < began + 10:
                peer.send(ul.p_data(ul.pdv(1, 0, bytes(16000))))
                time.sleep(0.1)
        except ConnectionError:
            pass
        assert time.monotonic() - began < 5


def test_a_sender_that_stores_now_and_then_keeps_its_association(tmp_path: Path) -> None:
    with run_receiver(tmp_path, idle_timeout_s="1") as receiver:
        peer = connect(receiver)
        peer.associate({**STORE, 3: (ul.VERIFICATION, [ul.IMPLICIT])})
        for number in range(5):
            uid = f"2.25.30{number}"
            stored = ul.store(
                1, encoded_instance(uid, "2.25.4", pixels=np.ones((64, 64), np.uint16)), uid
            )
            peer.send(stored[: len(stored) // 2])
            time.sleep(0.3)  # a slow transfer is not idle
            peer.send(stored[len(stored) // 2 :])
            assert peer.status() == 0
            peer.send(ul.echo(3))
            assert peer.status() == 0
            time.sleep(0.2)
        peer.send(ul.RELEASE)
        assert peer.ended_by() == ul.RELEASE_RP


def test_connections_from_many_addresses_are_limited_in_all(tmp_path: Path) -> None:
    with (
        run_receiver(
            tmp_path, callers="*@127.0.0.1", max_pending_connections="2", max_pending_total="8"
        ) as receiver,
        ExitStack() as stack,
    ):
        peers = [connect(receiver, f"127.0.3.{number}") for number in range(1, 31)]
        for peer in peers:
            stack.callback(peer.connection.close)
        receiver.wait_for_refusals("connection-refused", 22)
        assert {row["reason"] for row in receiver.refusals("connection-refused")} == {
            "too-many-connections-in-all"
        }
        # Strangers do not keep out those that are listed.
        peer, kind = ask(receiver)
        stack.callback(peer.connection.close)
        assert kind == ul.ASSOCIATE_AC


def test_refused_callers_that_do_not_hang_up_stay_pending(tmp_path: Path) -> None:
    """Each costs a thread until it has read its refusal."""
    with (
        run_receiver(tmp_path, max_pending_connections="3") as receiver,
        ExitStack() as stack,
    ):
        answers = []
        for _ in range(12):
            peer = connect(receiver)
            stack.callback(peer.connection.close)
            peer.send(ul.associate_rq(ECHO, called_ae="OTHER"))
            answer = peer.receive()
            answers.append(answer.kind if answer else None)
        assert None in answers
