"""Several processes on one port: a process that dies loses its associations, but no instance."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import psutil

from receiver.supervisor import CANNOT_START
from tests.fuzz.conversation import instance
from tests.support.clients import upper_layer as ul
from tests.support.servers.receiver import run_receiver, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers.receiver import ReceiverProcess

CONTEXTS = {1: (ul.MR_IMAGE, [ul.EXPLICIT])}


def processes(receiver: ReceiverProcess) -> set[int]:
    return {child.pid for child in psutil.Process(receiver.process.pid).children()}


def process_of(receiver: ReceiverProcess, peer: ul.Peer) -> int:
    """Return the process that has the other end of a connection."""
    port = peer.connection.getsockname()[1]
    for pid in processes(receiver):
        if any(c.raddr and c.raddr.port == port for c in psutil.Process(pid).net_connections()):
            return pid
    raise AssertionError("no process has this connection")


def test_a_process_that_dies_loses_only_its_own_associations(tmp_path: Path) -> None:
    with run_receiver(tmp_path, receiver_processes="2") as receiver:
        wait_until(lambda: len(processes(receiver)) == 2)
        held: dict[int, ul.Peer] = {}
        open_ones = []
        for _ in range(60):  # the kernel chooses the process by the source port
            peer = open_peer(receiver)
            open_ones.append(peer)
            held.setdefault(process_of(receiver, peer), peer)
            if len(held) == 2:
                break
        assert len(held) == 2
        victim, survivor = held
        _, data_set = instance(1, explicit=True)
        held[victim].send(ul.store(1, data_set, "2.25.711")[:300])  # in the middle of a transfer
        os.kill(victim, signal.SIGKILL)
        assert held[victim].receive_message() is None

        assert store(held[survivor], 2) == 0
        wait_until(lambda: len(processes(receiver) - {victim}) == 2)
        for _ in range(8):  # each is served by one of the processes
            peer = open_peer(receiver)
            open_ones.append(peer)
            assert store(peer, 1) == 0
        assert {row.sop_instance_uid for row in receiver.instances()} == {"2.25.711", "2.25.721"}
        wait_until(lambda: not list((receiver.spool / "tmp").glob("*/*")))
        for peer in open_ones:
            peer.connection.close()
        assert receiver.stop() == 0


def open_peer(receiver: ReceiverProcess) -> ul.Peer:
    peer = ul.Peer(socket.create_connection(("127.0.0.1", receiver.port), 20))
    peer.associate(CONTEXTS)
    return peer


def store(peer: ul.Peer, number: int) -> int | None:
    uid, data_set = instance(number, explicit=True)
    peer.send(ul.store(1, data_set, uid))
    answer = peer.response()
    return answer.status if answer else None


def test_the_limit_counts_the_associations_of_all_processes(tmp_path: Path) -> None:
    with run_receiver(
        tmp_path,
        receiver_processes="3",
        max_associations="4",
        max_associations_per_caller="4",
    ) as receiver:
        wait_until(lambda: len(processes(receiver)) == 3)
        peers = [open_peer(receiver) for _ in range(4)]
        with ul.peer(receiver.port) as fifth:
            fifth.send(ul.associate_rq(CONTEXTS))
            answer = fifth.receive()
            assert answer is not None
            assert answer.kind == ul.ASSOCIATE_RJ
        for peer in peers:
            peer.connection.close()


def test_a_port_of_another_receiver_is_not_shared(tmp_path: Path) -> None:
    with (
        run_receiver(tmp_path / "first", receiver_processes="2") as first,
        run_receiver(tmp_path / "second", receiver_processes="2", port=str(first.port)) as second,
    ):
        assert second.process.wait(timeout=30) == CANNOT_START
        assert "cannot-start" in second.log.read_text()
