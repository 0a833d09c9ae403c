"""A stateful fuzzer of the receiver: a hypothesis state machine that plays the sender.

Every rule sends something valid or invalid to a running receiver in the state that the earlier
rules have led to. Most invalid input is therefore sent inside an association, in the middle of a
command or of a data set. After invalid input the sending side is closed, and the receiver has to
end the connection.
"""

from __future__ import annotations

import hashlib
import socket
import sqlite3
import struct
from collections import Counter
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.support.builders.instances import encoded_instance
from tests.support.clients import upper_layer as ul
from tests.support.servers.receiver import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.servers.receiver import ReceiverProcess

_TIMEOUT_S = 15.0
"""Longer than any deadline of the receiver that the fuzzer reaches."""
_MAX_REACTIONS = 4
_OTHER_CLASS = "1.2.840.10008.5.1.4.1.1.2"
_PROPOSALS: Sequence[ul.Contexts] = (
    {1: (ul.MR_IMAGE, [ul.EXPLICIT]), 3: (ul.VERIFICATION, [ul.IMPLICIT])},
    {1: (ul.MR_IMAGE, [ul.IMPLICIT]), 3: (ul.VERIFICATION, [ul.IMPLICIT])},
    {
        1: (ul.MR_IMAGE, [ul.IMPLICIT, ul.EXPLICIT]),
        3: (ul.VERIFICATION, [ul.IMPLICIT]),
        5: (ul.MR_IMAGE, [ul.EXPLICIT]),
        7: (_OTHER_CLASS, [ul.EXPLICIT]),
        255: (ul.MR_IMAGE, [ul.IMPLICIT]),
    },
)

_DAMAGED = 99_999_000
"""First number of instances that may be damaged: a few changed bytes do not make their UIDs equal
to others."""

flips = st.lists(st.tuples(st.integers(0, 4095), st.integers(1, 255)), min_size=1, max_size=4)
sizes = st.lists(st.integers(1, 700), min_size=1, max_size=12)
numbers = st.integers(0, 400)


Transcript = list[tuple[bytes, int]]
"""Bytes sent, each with the number of reactions awaited before the next; empty bytes stand for
closing the sending side."""


class Conversation(RuleBasedStateMachine):
    """One connection after the other to `receiver`."""

    receiver: ClassVar[ReceiverProcess]
    tally: ClassVar[Counter[str]] = Counter()
    corpus: ClassVar[dict[tuple[str, ...], Transcript]] = {}
    """Shortest transcript for each sequence of reactions."""

    def __init__(self) -> None:
        super().__init__()
        self._peer: ul.Peer | None = None
        self._contexts: dict[int, str] = {}
        self._sent: Transcript = []
        self._reactions: list[str] = []
        self._stored: dict[str, str] = {}

    # --- Valid input ------------------------------------------------------------------
    @initialize(proposal=st.sampled_from(_PROPOSALS), max_length=st.sampled_from([0, 200, 16384]))
    def begin(self, proposal: ul.Contexts, max_length: int) -> None:
        self._associate(proposal, max_length)

    @precondition(lambda self: self._peer is None)
    @rule(
        proposal=st.sampled_from(_PROPOSALS),
        max_length=st.sampled_from([0, 7, 200, 16384, 131072, 0xFFFFFFFF]),
    )
    def associate(self, proposal: ul.Contexts, max_length: int) -> None:
        self._associate(proposal, max_length)

    @precondition(lambda self: self._peer is not None)
    @rule(number=numbers, pieces=sizes, in_one_pdu=st.booleans(), which=st.integers(0, 3))
    def store(self, number: int, pieces: list[int], in_one_pdu: bool, which: int) -> None:
        """Send an instance in fragments of any sizes; it must be stored."""
        context_id, explicit = self._storage_context(which)
        uid, data_set = instance(number, explicit)
        self._send(_message(context_id, ul.store_command(uid), data_set, pieces, in_one_pdu))
        assert self._receive() == "C-STORE-RSP 0x0000"
        self._stored[uid] = hashlib.sha256(data_set).hexdigest()

    @precondition(lambda self: self._peer is not None)
    @rule(message_id=st.integers(0, 0xFFFF))
    def echo(self, message_id: int) -> None:
        self._send(ul.echo(3, message_id))
        assert self._receive() == "C-ECHO-RSP 0x0000"

    @precondition(lambda self: self._peer is not None)
    @rule()
    def release(self) -> None:
        self._send(ul.RELEASE)
        assert self._receive() == "A-RELEASE-RP"
        self._close()

    @precondition(lambda self: self._peer is not None)
    @rule(how=st.sampled_from([ul.ABORT_BY_USER, b""]))
    def leave(self, how: bytes) -> None:
        self._send(how)
        self._end()

    # --- Invalid input ------------------------------------------------------------
    @precondition(lambda self: self._peer is None)
    @rule(proposal=st.sampled_from(_PROPOSALS), changes=flips, cut=st.integers(0, 400))
    def associate_invalid(
        self,
        proposal: ul.Contexts,
        changes: list[tuple[int, int]],
        cut: int,
    ) -> None:
        self._connect()
        request = _flipped(ul.associate_rq(proposal), changes)
        self._send(request[: len(request) - cut] if cut < len(request) else request)
        self._end()

    @precondition(lambda self: self._peer is not None)
    @rule(number=numbers, changes=flips, pieces=sizes, which=st.integers(0, 3))
    def store_damaged(
        self, number: int, changes: list[tuple[int, int]], pieces: list[int], which: int
    ) -> None:
        """Send a damaged data set in a valid message; there must be a status."""
        context_id, explicit = self._storage_context(which)
        uid, data_set = instance(_DAMAGED + number, explicit)
        damaged = _flipped(data_set, changes)
        self._send(_message(context_id, ul.store_command(uid), damaged, pieces, in_one_pdu=False))
        assert self._receive().startswith("C-STORE-RSP")

    @precondition(lambda self: self._peer is not None)
    @rule(
        number=numbers,
        keep=st.integers(1, 3000),
        which=st.integers(0, 3),
        then=st.sampled_from(["release", "abort", "echo", "store", "nothing", "command"]),
    )
    def break_off(self, number: int, keep: int, which: int, then: str) -> None:
        """Send something else, or nothing, in the middle of a message; it may even complete it."""
        context_id, explicit = self._storage_context(which)
        uid, data_set = instance(_DAMAGED + number, explicit)
        whole = _message(context_id, ul.store_command(uid), data_set, [211], in_one_pdu=False)
        self._send(whole[: min(keep, len(whole) - 1)])
        self._send(
            {
                "release": ul.RELEASE,
                "abort": ul.ABORT_BY_USER,
                "echo": ul.echo(3),
                "store": whole,
                "nothing": b"",
                "command": ul.p_data(ul.pdv(context_id, ul.COMMAND, ul.store_command(uid))),
            }[then]
        )
        self._end()

    @precondition(lambda self: self._peer is not None)
    @rule(changes=flips, field=st.integers(0, 0xFFFF), cut=st.integers(0, 60))
    def invalid_command(self, changes: list[tuple[int, int]], field: int, cut: int) -> None:
        encoded = _flipped(
            ul.command(field, 0x0001, sop_class=ul.MR_IMAGE, sop_instance="1.2.3"), changes
        )
        encoded = encoded[: max(1, len(encoded) - cut)]
        self._send(ul.p_data(ul.pdv(1, ul.COMMAND | ul.LAST, encoded)))
        self._end()

    @precondition(lambda self: self._peer is not None)
    @rule(
        items=st.lists(
            st.tuples(st.integers(0, 300), st.integers(0, 255), st.binary(max_size=64)),
            min_size=1,
            max_size=4,
        ),
        context_id=st.sampled_from([0, 1, 2, 3, 7, 255]),
        extra=st.integers(-8, 8),
    )
    def invalid_pdvs(
        self, items: list[tuple[int, int, bytes]], context_id: int, extra: int
    ) -> None:
        """Send PDVs with wrong lengths and any control byte; the PDU's length may be wrong too."""
        body = b"".join(
            struct.pack(">LBB", length, context_id, control) + data
            for length, control, data in items
        )
        self._send(struct.pack(">BxL", ul.P_DATA, max(0, len(body) + extra)) + body)
        self._end()

    @precondition(lambda self: self._peer is not None)
    @rule(
        kind=st.integers(0, 255),
        length=st.sampled_from([0, 1, 4, 5, 70, 0xFFFF, 0x100000, 0x12C00000, 0xFFFFFFFF]),
        body=st.binary(max_size=80),
    )
    def invalid_pdu(self, kind: int, length: int, body: bytes) -> None:
        """Send any kind of PDU with a wrong length."""
        self._send(struct.pack(">BxL", kind, length) + body)
        self._end()

    @precondition(lambda self: self._peer is not None)
    @rule(data=st.binary(min_size=1, max_size=400))
    def random_bytes(self, data: bytes) -> None:
        self._send(data)
        self._end()

    # --- Invariants -------------------------------------------------------------------
    def teardown(self) -> None:
        """Check that no file is half written, stored instances exist and the receiver responds."""
        if self._peer is not None:
            self._end()
        assert self.receiver.process.poll() is None, "the receiver has ended"
        half_written = self.receiver.spool / "tmp"
        wait_until(lambda: not list(half_written.glob("*/*")), 5)
        with ul.peer(self.receiver.port, _TIMEOUT_S) as peer:
            assert peer.associate({1: (ul.VERIFICATION, [ul.IMPLICIT])})
            peer.send(ul.echo(1))
            response = peer.response()
            assert response is not None
            assert response.status == 0
            peer.send(ul.RELEASE)
        self._check_stored()

    def _check_stored(self) -> None:
        with closing(sqlite3.connect(self.receiver.data_dir / "epvs.sqlite", timeout=30)) as rows:
            for uid, digest in self._stored.items():
                row = "SELECT path, sha256 FROM instances WHERE sop_instance_uid = ?"
                path, sha256 = rows.execute(row, [uid]).fetchone()
                content = Path(path).read_bytes()
                assert hashlib.sha256(content).hexdigest() == sha256
                assert hashlib.sha256(content[_head_bytes(content) :]).hexdigest() == digest

    # --- Sending and receiving ------------------------------------------------------------------
    def _connect(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self.receiver.port), _TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = ul.Peer(connection)
        self._sent, self._reactions = [], []
        self.tally["connections"] += 1

    def _associate(self, proposal: ul.Contexts, max_length: int) -> None:
        self._connect()
        self._send(ul.associate_rq(proposal, max_length=max_length))
        assert self._peer is not None
        response = self._peer.receive()
        assert response is not None
        assert response.kind == ul.ASSOCIATE_AC
        self._contexts = ul.accepted_contexts(response.body)
        self._record("A-ASSOCIATE-AC")

    def _storage_context(self, which: int) -> tuple[int, bool]:
        storing = [each for each in self._contexts if each not in (3, 7)]
        context_id = storing[which % len(storing)]
        return context_id, self._contexts[context_id] == ul.EXPLICIT

    def _send(self, data: bytes) -> None:
        assert self._peer is not None
        if not data:
            return
        self._sent.append((data, 0))
        try:
            self._peer.send(data)
        except ConnectionError:  # it has closed the connection meanwhile
            self._record("connection closed")

    def _receive(self) -> str:
        assert self._peer is not None
        reaction = reaction_of(self._peer.receive_message())
        self._record(reaction)
        return reaction

    def _end(self) -> None:
        """Close the sending side, and wait until the receiver has ended the connection."""
        assert self._peer is not None
        self._sent.append((b"", 0))
        with suppress(OSError):  # it may have closed the connection already
            self._peer.connection.shutdown(socket.SHUT_WR)
        while self._receive() != "connection closed":
            pass
        self._close()

    def _close(self) -> None:
        assert self._peer is not None
        self._peer.connection.close()
        self._peer = None
        reactions = until_the_end(self._reactions)
        if len(reactions) <= _MAX_REACTIONS:
            known = self.corpus.get(reactions)
            if known is None or _length(self._sent) < _length(known):
                self.corpus[reactions] = self._sent

    def _record(self, reaction: str) -> None:
        self._reactions.append(reaction)
        self.tally[reaction] += 1
        data, n_reactions = self._sent.pop()
        self._sent.append((data, n_reactions + 1))


def until_the_end(reactions: Sequence[str]) -> tuple[str, ...]:
    """Drop what follows an abort: it depends on the timing."""
    kept: list[str] = []
    for reaction in reactions:
        if reaction != "connection closed":
            kept.append(reaction)
        if reaction.startswith("A-ABORT"):
            break
    return tuple(kept)


def reaction_of(response: ul.Response | ul.Pdu | None) -> str:
    """Describe what the receiver sent."""
    if response is None:
        return "connection closed"
    if isinstance(response, ul.Response):
        name = {0x8001: "C-STORE-RSP", 0x8030: "C-ECHO-RSP"}.get(response.field, "other response")
        return f"{name} 0x{response.status:04X}"
    if response.kind == ul.ABORT:
        return f"A-ABORT {response.body[2]}/{response.body[3]}"
    names = {
        ul.ASSOCIATE_AC: "A-ASSOCIATE-AC",
        ul.ASSOCIATE_RJ: "A-ASSOCIATE-RJ",
        ul.RELEASE_RP: "A-RELEASE-RP",
    }
    return names.get(response.kind, f"PDU 0x{response.kind:02X}")


@cache
def instance(number: int, explicit: bool) -> tuple[str, bytes]:
    """Return a small instance: its UID and its data set."""
    uid = f"2.25.7{number}{int(explicit)}"
    return uid, encoded_instance(
        uid,
        f"2.25.5{number // 10}",
        pixels=np.arange(144, dtype=np.uint16).reshape(12, 12),
        patient_id=f"CANARY-{number // 10}",
        explicit=explicit,
    )


def _message(
    context_id: int, command: bytes, data_set: bytes, pieces: list[int], in_one_pdu: bool
) -> bytes:
    """Encode a message with the data set cut into fragments of these sizes, repeatedly."""
    pdvs = [ul.pdv(context_id, ul.COMMAND | ul.LAST, command)]
    position, turn = 0, 0
    while position < len(data_set):
        end = position + pieces[turn % len(pieces)]
        control = ul.LAST if end >= len(data_set) else 0
        pdvs.append(ul.pdv(context_id, control, data_set[position:end]))
        position, turn = end, turn + 1
    return ul.p_data(*pdvs) if in_one_pdu else b"".join(ul.p_data(each) for each in pdvs)


def _length(transcript: Transcript) -> int:
    return sum(len(data) for data, _ in transcript)


def _flipped(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for position, mask in changes:
        changed[position % len(changed)] ^= mask
    return bytes(changed)


def _head_bytes(part_10: bytes) -> int:
    """Length of preamble, prefix and File Meta Information."""
    return 144 + int.from_bytes(part_10[140:144], "little")
