"""A short run of the fuzzer, and a replay of every transcript that it has kept."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.conversation import Conversation, reaction_of, until_the_end
from tests.fuzz.receiver import read_corpus, run_examples
from tests.support.clients import upper_layer as ul
from tests.support.servers.receiver import run_receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers.receiver import ReceiverProcess


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    folder = tmp_path_factory.mktemp("receiver")
    with run_receiver(folder / "data", network_timeout_s="10", log_level="WARNING") as process:
        yield process


def test_no_input_violates_an_invariant(receiver: ReceiverProcess) -> None:
    Conversation.receiver = receiver
    run_examples(25, first_seed=4711)
    assert Conversation.tally["C-STORE-RSP 0x0000"]


def test_every_transcript_has_its_known_reactions(receiver: ReceiverProcess) -> None:
    transcripts = read_corpus()
    assert transcripts
    wrong = {}
    for name, (expected, sent) in transcripts.items():
        found: list[str] = []
        with ul.peer(receiver.port) as peer:
            for data, n_reactions in sent:
                with suppress(OSError):  # it may have closed the connection
                    if data:
                        peer.send(data)
                    else:
                        peer.connection.shutdown(socket.SHUT_WR)
                found += [reaction_of(peer.receive_message()) for _ in range(n_reactions)]
        if until_the_end(found) != until_the_end(expected):
            wrong[name] = (expected, found)
    assert not wrong
