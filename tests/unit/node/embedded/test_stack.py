"""The embedded stack's supervision of its components, and the settings that it passes on."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from core.errors import ConfigurationError
from core.settings import load_settings
from node.embedded.running import RunningStack, running_components
from node.embedded.stack import (
    STOP_WORKER_S,
    EmbeddedStack,
    delivering_processes,
    environment_of,
)
from node.embedded.supervision import Component
from worker.app import SOFT_SHUTDOWN_S


def _component(name: str, event: str) -> Any:
    component = Mock()
    component.name = name
    component.supervise.return_value = event
    return component


def test_what_happens_to_a_component_is_shown_and_the_others_are_supervised_too() -> None:
    shown: list[str] = []
    components = [_component("receiver", "killed by SIGKILL"), _component("worker", "")]
    EmbeddedStack(load_settings(), shown.append, components).supervise()
    assert shown == ["receiver: killed by SIGKILL"]
    components[1].supervise.assert_called_once()


def test_a_full_disk_does_not_end_the_supervision(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    component = Component("receiver", Mock(), Mock(), start_timeout_s=1.0)
    component.supervise = Mock(return_value="")  # type: ignore[method-assign]
    stack = EmbeddedStack(settings, components=[component])
    stack._running = RunningStack(settings)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "write_text", Mock(side_effect=OSError(errno.ENOSPC, "full")))
            stack.supervise()
        assert running_components(settings) == []
        stack.supervise()
        assert running_components(settings) == [component.state]
    finally:
        stack._running.withdraw()


def test_components_are_stopped_in_reverse_order_and_workers_have_time() -> None:
    """Both workers have the same time for what they have in hand."""
    done: list[str] = []
    components = [_component(name, "") for name in ("Triton", "Redis", "worker", "delivery")]
    for component in components:
        component.terminate.side_effect = lambda name=component.name: done.append(f"ask {name}")
        component.stop.side_effect = lambda name=component.name: done.append(name)
    EmbeddedStack(load_settings(), components=components).stop()
    assert done == ["ask worker", "ask delivery", "delivery", "worker", "Redis", "Triton"]
    assert STOP_WORKER_S > SOFT_SHUTDOWN_S


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


def test_the_receiver_is_ready_when_it_listens_at_its_own_address_on_all_its_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With ``EPVS_PORT=0`` it listens for TLS alone."""
    monkeypatch.setattr(EmbeddedStack, "_process", Mock())
    with socket.create_server(("127.0.0.2", 0)) as receiver:
        port = receiver.getsockname()[1]
        ports = {"host": "127.0.0.2", "port": 0, "tls_port": port}
        settings = load_settings().model_copy(update=ports)
        component = EmbeddedStack(settings)._launch_receiver()
        component.wait_until_ready()
    assert component.state.state == "running"


@pytest.mark.parametrize(
    ("destinations", "processes"),
    [
        ("", 2),
        ("PACS@127.0.0.1:104", 2),
        ("PACS@127.0.0.1:104,hl7://127.0.0.1:2575", 4),
        ("PACS@127.0.0.1:104,*@*:104", 6),
        (",".join(f"P{k}@127.0.0.1:104" for k in range(50)), 16),
    ],
)
def test_as_many_processes_deliver_as_all_destinations_may_take(
    destinations: str, processes: int
) -> None:
    assert delivering_processes(load_settings(destinations=destinations)) == processes
