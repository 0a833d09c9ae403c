"""Unix sockets of the embedded servers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from core.permissions import is_private
from node.embedded.sockets import accepts_connections_at, private_folder, socket_path


def test_the_longest_path_can_be_bound_and_a_longer_one_is_refused(tmp_path: Path) -> None:
    name = "x" * (107 - len(f"{tmp_path}/"))
    path = socket_path(tmp_path, name)
    assert not accepts_connections_at(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert accepts_connections_at(path)
    assert not accepts_connections_at(path)
    with pytest.raises(ConfigurationError, match=r"too long by 2 bytes.*EPVS_DATA_DIR"):
        socket_path(tmp_path, f"{name}ü")


def test_a_relative_folder_becomes_absolute() -> None:
    assert socket_path(Path("data"), "s") == Path.cwd() / "data" / "s"


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    for folder in (tmp_path / "new" / "inner", tmp_path / "old"):
        (tmp_path / "old").mkdir(exist_ok=True)
        private_folder(folder)
        assert is_private(folder)
