"""The fuzzer for a few seconds, and everything it once found the receiver to react to."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.conversation import Conversation, reaction_of, until_the_end
from tests.fuzz.receiver import lead_conversations, read_corpus
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


def test_conversations_leave_the_receiver_as_it_must_be(receiver: ReceiverProcess) -> None:
    Conversation.receiver = receiver
    lead_conversations(25, first_seed=4711)
    assert Conversation.tally["C-STORE-RSP 0x0000"]


def test_every_transcript_is_reacted_to_as_before(receiver: ReceiverProcess) -> None:
    transcripts = read_corpus()
    assert transcripts
    wrong = {}
    for name, (expected, sent) in transcripts.items():
        heard: list[str] = []
        with ul.peer(receiver.port) as peer:
            for data, n_reactions in sent:
                with suppress(OSError):  # it may end the conversation in the middle of this
                    if data:
                        peer.send(data)
                    else:
                        peer.connection.shutdown(socket.SHUT_WR)
                heard += [reaction_of(peer.hear()) for _ in range(n_reactions)]
        if until_the_end(heard) != until_the_end(expected):
            wrong[name] = (expected, heard)
    assert not wrong
