"""Installation of Triton and Redis: error messages, and what an interruption leaves behind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from core.errors import ConfigurationError
from node.embedded import servers
from node.embedded.servers import Servers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "epvs-node"


def test_missing_servers_are_reported_with_the_command_that_installs_them() -> None:
    with pytest.raises(ConfigurationError, match=r"-m node\.embedded\.servers"):
        Servers.find()


def test_a_python_that_triton_does_not_support_is_refused_before_the_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "_NEWEST_PYTHON", (3, 10))
    monkeypatch.setattr(servers, "_install", lambda _: pytest.fail("began to install"))
    with pytest.raises(ConfigurationError, match=r"Use Python 3\.11 to 3\.13"):
        Servers.install()


def test_a_failed_installation_shows_the_output_of_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = (sys.executable, "-c", "import sys; sys.exit('No matching distribution found')")
    run = servers._run
    monkeypatch.setattr(servers, "_install", lambda _: run(*failing))
    with pytest.raises(ConfigurationError, match=r"(?s)No matching distribution.*EPVS_TRITON_URL"):
        Servers.install()


def test_an_interrupted_installation_leaves_nothing_behind(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(target: Path) -> None:
        (target / "bin").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(servers, "_install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Servers.install()
    assert list(cache.iterdir()) == []


def test_an_installation_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_install", lambda target: target.mkdir(parents=True))
    installed = Servers.install()
    assert Servers.find() == installed


def test_a_missing_libpython_names_the_debian_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_python_version", lambda: "3.99")
    with pytest.raises(ConfigurationError, match=r"Debian package libpython3\.99"):
        Servers(tmp_path).triton_environment()
