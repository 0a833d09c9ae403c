"""Conversations with the receiver as no sender would lead them: a state machine for hypothesis.

Every rule says something to a running receiver, right or wrong, in the state that the rules before
it have led to, so that most of what is said wrong is said where it counts: in P-DATA of an
association that was negotiated, in the middle of a command or of a data set. What is wrong is said
last: the sending side is closed, and the receiver has to end the conversation.
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

_ANSWER_S = 15.0
"""Longer than any deadline of the receiver that the fuzzer is to run into."""
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
"""First number of instances that may be damaged: no few flips make their UIDs those of others."""

flips = st.lists(st.tuples(st.integers(0, 4095), st.integers(1, 255)), min_size=1, max_size=4)
sizes = st.lists(st.integers(1, 700), min_size=1, max_size=12)
numbers = st.integers(0, 400)


Transcript = list[tuple[bytes, int]]
"""What was said, each with the number of reactions that were waited for before the next; nothing
stands for closing the sending side."""


class Conversation(RuleBasedStateMachine):
    """One connection after the other to the receiver that runs in `receiver`."""

    receiver: ClassVar[ReceiverProcess]
    tally: ClassVar[Counter[str]] = Counter()
    corpus: ClassVar[dict[tuple[str, ...], Transcript]] = {}
    """Shortest transcript that led to each sequence of reactions."""

    def __init__(self) -> None:
        super().__init__()
        self._peer: ul.Peer | None = None
        self._contexts: dict[int, str] = {}
        self._sent: Transcript = []
        self._reactions: list[str] = []
        self._stored: dict[str, str] = {}

    # --- What a sender does ------------------------------------------------------------------
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
        """An instance in fragments of any sizes; it must be stored."""
        context_id, explicit = self._storage_context(which)
        uid, data_set = instance(number, explicit)
        self._say(_message(context_id, ul.store_command(uid), data_set, pieces, in_one_pdu))
        assert self._hear() == "C-STORE-RSP 0x0000"
        self._stored[uid] = hashlib.sha256(data_set).hexdigest()

    @precondition(lambda self: self._peer is not None)
    @rule(message_id=st.integers(0, 0xFFFF))
    def echo(self, message_id: int) -> None:
        self._say(ul.echo(3, message_id))
        assert self._hear() == "C-ECHO-RSP 0x0000"

    @precondition(lambda self: self._peer is not None)
    @rule()
    def release(self) -> None:
        self._say(ul.RELEASE)
        assert self._hear() == "A-RELEASE-RP"
        self._close()

    @precondition(lambda self: self._peer is not None)
    @rule(how=st.sampled_from([ul.ABORT_BY_USER, b""]))
    def leave(self, how: bytes) -> None:
        self._say(how)
        self._end()

    # --- What no sender should do ------------------------------------------------------------
    @precondition(lambda self: self._peer is None)
    @rule(proposal=st.sampled_from(_PROPOSALS), changes=flips, cut=st.integers(0, 400))
    def associate_wrongly(
        self,
        proposal: ul.Contexts,
        changes: list[tuple[int, int]],
        cut: int,
    ) -> None:
        self._connect()
        request = _flipped(ul.associate_rq(proposal), changes)
        self._say(request[: len(request) - cut] if cut < len(request) else request)
        self._end()

    @precondition(lambda self: self._peer is not None)
    @rule(number=numbers, changes=flips, pieces=sizes, which=st.integers(0, 3))
    def store_damaged(
        self, number: int, changes: list[tuple[int, int]], pieces: list[int], which: int
    ) -> None:
        """Other bytes than were meant, in a sound message: there must be a status."""
        context_id, explicit = self._storage_context(which)
        uid, data_set = instance(_DAMAGED + number, explicit)
        damaged = _flipped(data_set, changes)
        self._say(_message(context_id, ul.store_command(uid), damaged, pieces, in_one_pdu=False))
        assert self._hear().startswith("C-STORE-RSP")

    @precondition(lambda self: self._peer is not None)
    @rule(
        number=numbers,
        keep=st.integers(1, 3000),
        which=st.integers(0, 3),
        then=st.sampled_from(["release", "abort", "echo", "store", "nothing", "command"]),
    )
    def break_off(self, number: int, keep: int, which: int, then: str) -> None:
        """Something else, or nothing, in the middle of a message, which may even complete it."""
        context_id, explicit = self._storage_context(which)
        uid, data_set = instance(_DAMAGED + number, explicit)
        whole = _message(context_id, ul.store_command(uid), data_set, [211], in_one_pdu=False)
        self._say(whole[: min(keep, len(whole) - 1)])
        self._say(
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
    def command_wrongly(self, changes: list[tuple[int, int]], field: int, cut: int) -> None:
        encoded = _flipped(
            ul.command(field, 0x0001, sop_class=ul.MR_IMAGE, sop_instance="1.2.3"), changes
        )
        encoded = encoded[: max(1, len(encoded) - cut)]
        self._say(ul.p_data(ul.pdv(1, ul.COMMAND | ul.LAST, encoded)))
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
    def pdvs_wrongly(
        self, items: list[tuple[int, int, bytes]], context_id: int, extra: int
    ) -> None:
        """PDVs whose lengths lie, with any control byte, in a PDU whose length may lie too."""
        body = b"".join(
            struct.pack(">LBB", length, context_id, control) + data
            for length, control, data in items
        )
        self._say(struct.pack(">BxL", ul.P_DATA, max(0, len(body) + extra)) + body)
        self._end()

    @precondition(lambda self: self._peer is not None)
    @rule(
        kind=st.integers(0, 255),
        length=st.sampled_from([0, 1, 4, 5, 70, 0xFFFF, 0x100000, 0x12C00000, 0xFFFFFFFF]),
        body=st.binary(max_size=80),
    )
    def pdu_wrongly(self, kind: int, length: int, body: bytes) -> None:
        """Any kind of PDU, of a length that it does not have."""
        self._say(struct.pack(">BxL", kind, length) + body)
        self._end()

    @precondition(lambda self: self._peer is not None)
    @rule(data=st.binary(min_size=1, max_size=400))
    def babble(self, data: bytes) -> None:
        self._say(data)
        self._end()

    # --- What must be true -------------------------------------------------------------------
    def teardown(self) -> None:
        """Nothing is half-written, what was answered 0x0000 is there, and it still answers."""
        if self._peer is not None:
            self._end()
        assert self.receiver.process.poll() is None, "the receiver has ended"
        half_written = self.receiver.spool / "tmp"
        wait_until(lambda: not any(path.is_file() for path in half_written.rglob("*")), 5)
        with ul.peer(self.receiver.port, _ANSWER_S) as peer:
            assert peer.associate({1: (ul.VERIFICATION, [ul.IMPLICIT])})
            peer.send(ul.echo(1))
            answer = peer.response()
            assert answer is not None
            assert answer.status == 0
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

    # --- Saying and hearing ------------------------------------------------------------------
    def _connect(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self.receiver.port), _ANSWER_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = ul.Peer(connection)
        self._sent, self._reactions = [], []
        self.tally["connections"] += 1

    def _associate(self, proposal: ul.Contexts, max_length: int) -> None:
        self._connect()
        self._say(ul.associate_rq(proposal, max_length=max_length))
        assert self._peer is not None
        answer = self._peer.receive()
        assert answer is not None
        assert answer.kind == ul.ASSOCIATE_AC
        self._contexts = ul.accepted_contexts(answer.body)
        self._note("A-ASSOCIATE-AC")

    def _storage_context(self, which: int) -> tuple[int, bool]:
        storing = [each for each in self._contexts if each not in (3, 7)]
        context_id = storing[which % len(storing)]
        return context_id, self._contexts[context_id] == ul.EXPLICIT

    def _say(self, data: bytes) -> None:
        assert self._peer is not None
        if not data:
            return
        self._sent.append((data, 0))
        try:
            self._peer.send(data)
        except ConnectionError:  # it has ended the conversation in the middle of this
            self._note("connection closed")

    def _hear(self) -> str:
        assert self._peer is not None
        reaction = reaction_of(self._peer.hear())
        self._note(reaction)
        return reaction

    def _end(self) -> None:
        """Say nothing more, and wait until the receiver has ended the conversation."""
        assert self._peer is not None
        self._sent.append((b"", 0))
        with suppress(OSError):  # it may have closed the connection already
            self._peer.connection.shutdown(socket.SHUT_WR)
        while self._hear() != "connection closed":
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

    def _note(self, reaction: str) -> None:
        self._reactions.append(reaction)
        self.tally[reaction] += 1
        data, n_reactions = self._sent.pop()
        self._sent.append((data, n_reactions + 1))


def until_the_end(reactions: Sequence[str]) -> tuple[str, ...]:
    """Cut what follows an abort: how the rest is read is a matter of when it comes."""
    kept: list[str] = []
    for reaction in reactions:
        if reaction != "connection closed":
            kept.append(reaction)
        if reaction.startswith("A-ABORT"):
            break
    return tuple(kept)


def reaction_of(answer: ul.Response | ul.Pdu | None) -> str:
    """What the receiver said, in words."""
    if answer is None:
        return "connection closed"
    if isinstance(answer, ul.Response):
        name = {0x8001: "C-STORE-RSP", 0x8030: "C-ECHO-RSP"}.get(answer.field, "other response")
        return f"{name} 0x{answer.status:04X}"
    if answer.kind == ul.ABORT:
        return f"A-ABORT {answer.body[2]}/{answer.body[3]}"
    names = {
        ul.ASSOCIATE_AC: "A-ASSOCIATE-AC",
        ul.ASSOCIATE_RJ: "A-ASSOCIATE-RJ",
        ul.RELEASE_RP: "A-RELEASE-RP",
    }
    return names.get(answer.kind, f"PDU 0x{answer.kind:02X}")


@cache
def instance(number: int, explicit: bool) -> tuple[str, bytes]:
    """A small instance: its UID, and its data set."""
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
    """A message whose data set is cut as `pieces` say, over and over."""
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
