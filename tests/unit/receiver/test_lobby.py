"""Connections are let in once they have asked for something, and not before."""

from __future__ import annotations

import queue
import socket
import struct
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from receiver.lobby import DICOM, Lobby

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGE = struct.pack(">BxL", 1, 5000) + bytes(5000)


class Entrance:
    """A lobby, and connections to it."""

    def __init__(self, stack: ExitStack, deadline_s: float) -> None:
        self.outcomes: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._stack = stack
        self._listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.lobby = Lobby(
            DICOM,
            admit=self._take("admitted"),
            dismiss=self._take("dismissed"),
            expire=self._take("expired"),
            deadline_s=deadline_s,
        )
        stack.callback(self.lobby.close)

    def connect(self) -> socket.socket:
        ours = self._stack.enter_context(socket.create_connection(self._listening.getsockname()))
        theirs, address = self._listening.accept()
        self._theirs = self._stack.enter_context(theirs)
        self.lobby.enter(theirs, address)
        return ours

    def close_theirs(self) -> None:
        """Close our end of the last connection, whose descriptor the next one gets."""
        self._theirs.close()

    def outcome(self, of: socket.socket) -> str:
        outcome, port = self.outcomes.get(timeout=20)
        assert port == of.getsockname()[1]
        return outcome

    def _take(self, outcome: str) -> Any:
        return lambda _connection, address: self.outcomes.put((outcome, address[1]))


@pytest.fixture
def entrance() -> Iterator[Entrance]:
    with ExitStack() as stack:
        yield Entrance(stack, deadline_s=60)


def test_a_message_is_waited_for_to_its_last_byte(entrance: Entrance) -> None:
    slow, quick = entrance.connect(), entrance.connect()
    for start in (0, 3, 6, 5005):
        slow.sendall(MESSAGE[start : {0: 3, 3: 6, 6: 5005, 5005: 5006}[start]])
    quick.sendall(MESSAGE)
    assert {entrance.outcomes.get(timeout=20)[0] for _ in range(2)} == {"admitted"}
    assert entrance.lobby.count("127.0.0.1") == 0

    part = entrance.connect()
    part.sendall(MESSAGE[:5000])
    other = entrance.connect()
    other.sendall(MESSAGE)
    assert entrance.outcome(of=other) == "admitted"  # and the one before it was not
    assert entrance.lobby.count("127.0.0.1") == 1
    part.sendall(MESSAGE[5000:])
    assert entrance.outcome(of=part) == "admitted"


@pytest.mark.parametrize("said", [b"", MESSAGE[:3], MESSAGE[:300]])
def test_who_hangs_up_is_seen_off(entrance: Entrance, said: bytes) -> None:
    guest = entrance.connect()
    guest.sendall(said)
    guest.shutdown(socket.SHUT_WR)
    assert entrance.outcome(of=guest) == "dismissed"


def test_what_is_too_long_to_wait_for_is_judged_by_its_header(entrance: Entrance) -> None:
    guest = entrance.connect()
    guest.sendall(struct.pack(">BxL", 1, 0xFFFF_FFF0))
    assert entrance.outcome(of=guest) == "admitted"


def test_who_waits_too_long_is_seen_off_and_the_others_with_the_lobby() -> None:
    with ExitStack() as stack:
        entrance = Entrance(stack, deadline_s=0.2)
        guest = entrance.connect()
        guest.sendall(MESSAGE[:100])
        assert entrance.outcome(of=guest) == "expired"
    with ExitStack() as stack:
        entrance = Entrance(stack, deadline_s=60)
        guest = entrance.connect()
        entrance.lobby.close()
        assert entrance.outcome(of=guest) == "dismissed"


def test_a_descriptor_that_is_used_again_is_another_connection(entrance: Entrance) -> None:
    for _ in range(200):
        guest = entrance.connect()
        guest.sendall(MESSAGE)
        assert entrance.outcome(of=guest) == "admitted"
        entrance.close_theirs()


def test_many_may_enter_while_the_lobby_is_busy() -> None:
    free = threading.Event()
    entered: queue.SimpleQueue[int] = queue.SimpleQueue()
    seen_off = Mock()

    def admit(_connection: socket.socket, address: Any) -> None:
        entered.put(address[1])
        free.wait(20)

    with ExitStack() as stack:
        pairs = [stack.enter_context(pair) for pair in socket.socketpair()]
        lobby = Lobby(DICOM, admit, seen_off, seen_off, deadline_s=60)
        stack.callback(lobby.close)
        stack.callback(free.set)
        pairs[0].sendall(MESSAGE)
        lobby.enter(pairs[1], ("", 1))
        assert entered.get(timeout=20) == 1  # and the lobby's thread is held there
        guest, theirs = (stack.enter_context(pair) for pair in socket.socketpair())
        for _ in range(70_000):  # more than the pipe that wakes the thread can hold
            lobby.enter(theirs, ("", 2))
        free.set()
        guest.sendall(MESSAGE)
        assert entered.get(timeout=20) == 2
