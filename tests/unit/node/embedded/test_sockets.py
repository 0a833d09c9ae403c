"""Unix sockets of the embedded servers."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.errors import ConfigurationError
from core.permissions import is_private
from node.embedded.sockets import accepts_connections_at, private_folder, socket_path

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of the system's temporary files, with a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def test_a_path_that_is_too_long_is_replaced_by_a_private_one(
    tmp_path: Path, temporary: Path
) -> None:
    name = "x" * (107 - len(f"{tmp_path}/"))
    assert socket_path(tmp_path, name) == tmp_path / name
    replaced = [socket_path(tmp_path, f"{name}y"), socket_path(tmp_path / "z", f"{name}y")]
    assert replaced[0] == socket_path(tmp_path, f"{name}y")
    assert len({path.parent for path in replaced}) == 2
    for path in (tmp_path / name, temporary / "s"):
        assert not accepts_connections_at(path)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            assert accepts_connections_at(path)
        assert not accepts_connections_at(path)
    assert {path.parent.parent for path in replaced} == {temporary}
    assert all(is_private(path.parent) for path in replaced)


@pytest.mark.parametrize("planted", ["open", "link"])
def test_a_folder_that_another_account_made_is_refused(
    planted: str, tmp_path: Path, temporary: Path
) -> None:
    ours = socket_path(tmp_path, "x" * 107).parent
    ours.rmdir()
    if planted == "open":
        ours.mkdir()
        ours.chmod(0o777)
    else:
        ours.symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match=r"not a private folder.*EPVS_DATA_DIR"):
        socket_path(tmp_path, "x" * 107)


def test_a_relative_folder_becomes_absolute() -> None:
    assert socket_path(Path("data"), "s") == Path.cwd() / "data" / "s"


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    for folder in (tmp_path / "new" / "inner", tmp_path / "old"):
        (tmp_path / "old").mkdir(exist_ok=True)
        private_folder(folder)
        assert is_private(folder)
