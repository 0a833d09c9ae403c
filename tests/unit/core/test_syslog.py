from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

from core.syslog import SyslogServer

if TYPE_CHECKING:
    from pathlib import Path

RFC_5424 = re.compile(
    rb"<109>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ epvs-node \d+ - - a message"
)


@pytest.mark.parametrize(
    "text", ["udp://192.0.2.7:514", "tcp://log.example:601", "tcp://[::1]:601", "unix:///dev/log"]
)
def test_an_address_is_read_and_written(text: str) -> None:
    assert str(SyslogServer.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "host:514", "udp://host", "udp://host:x", "http://host:1", "unix://log", "tcp://h:1/x"],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be udp|Port could not"):
        SyslogServer.parse(text)


def test_a_message_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        SyslogServer("udp", "127.0.0.1", server.getsockname()[1]).send("a message")
        assert RFC_5424.fullmatch(server.recv(1000))


def test_a_message_over_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        SyslogServer("tcp", "127.0.0.1", server.getsockname()[1]).send("a message")
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as received:
            assert RFC_5424.fullmatch(received.read().removesuffix(b"\n"))


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_message_to_a_socket(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(str(path))
        server.settimeout(5)
        if kind is socket.SOCK_STREAM:
            server.listen()
        SyslogServer("unix", str(path), 0).send("a message")
        receiving = server.accept()[0] if kind is socket.SOCK_STREAM else server
        with receiving:
            assert re.fullmatch(rb"<109>epvs-node\[\d+\]: a message\n?", receiving.recv(1000))


def test_an_unreachable_server_is_an_error(tmp_path: Path) -> None:
    for server in (
        SyslogServer("tcp", "127.0.0.1", 1),
        SyslogServer("unix", str(tmp_path / "missing"), 0),
    ):
        with pytest.raises(OSError, match=r"refused|No such file"):
            server.send("a message")
