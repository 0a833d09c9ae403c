"""The embedded stack's supervision of its components, and the settings that it passes on."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from core.errors import ConfigurationError, Unavailable
from core.settings import load_settings
from node.embedded.stack import EmbeddedStack, environment_of

if TYPE_CHECKING:
    from pathlib import Path


def _component(name: str, *, running: bool) -> Mock:
    component = Mock(log_path=f"{name}.log")
    component.name = name
    component.running.return_value = running
    component.log_tail.return_value = "the last lines"
    return component


def test_a_triton_that_has_ended_is_started_again() -> None:
    triton = _component("triton", running=False)
    EmbeddedStack(load_settings(), triton=triton).check()
    assert [call[0] for call in triton.method_calls] == ["running", "stop", "start"]
    triton = _component("triton", running=True)
    EmbeddedStack(load_settings(), triton=triton).check()
    triton.start.assert_not_called()


def test_a_component_that_has_ended_ends_the_stack_with_its_log() -> None:
    components: list[Any] = [
        _component("receiver", running=True),
        _component("worker", running=False),
    ]
    with pytest.raises(Unavailable, match=r"(?s)worker has ended.*the last lines") as raised:
        EmbeddedStack(load_settings(), processes=components).check()
    assert "worker.log" in str(raised.value)


def test_a_port_in_use_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = load_settings(data_dir=tmp_path / "data", host="127.0.0.1", port=port)
        with (
            pytest.raises(ConfigurationError, match=f"Cannot listen on 127.0.0.1:{port}"),
            EmbeddedStack(settings),
        ):
            pass
    assert not (tmp_path / "data").exists()


def test_components_read_the_settings_that_the_stack_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = load_settings(
        data_dir=tmp_path,
        callers="PACS@192.0.2.10",
        destinations="PACS@192.0.2.10:104?pm=1",
        quiet_period_s=2.5,
        trust_store_status=False,
    )
    for name in [name for name in os.environ if name.startswith("EPVS_")]:
        monkeypatch.delenv(name)
    for name, value in environment_of(given).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == given


def test_components_read_secret_files_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://epvs:s3cret@db/epvs"
    (tmp_path / "database_url").write_text(url)
    monkeypatch.setenv("EPVS_DATABASE_URL_FILE", str(tmp_path / "database_url"))
    given = load_settings(data_dir=tmp_path)
    assert given.database_url == url
    passed = environment_of(given)
    assert passed == {"EPVS_DATA_DIR": str(tmp_path)}
    other = load_settings(database_url=f"sqlite:///{tmp_path}/demo.sqlite")
    for name, value in environment_of(other).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == other
