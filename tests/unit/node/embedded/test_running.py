"""Other commands find a running embedded stack, and only a running one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from core.errors import ConfigurationError
from core.settings import load_settings
from node.embedded import running

if TYPE_CHECKING:
    from pathlib import Path


def test_settings_come_from_the_running_stack_unless_given(tmp_path: Path) -> None:
    stack = load_settings(
        data_dir=tmp_path,
        ae_title="GRADER",
        port=4713,
        destinations="PACS@192.0.2.10:104",
        broker_url="redis://127.0.0.1:4711/0",
        triton_url="127.0.0.1:4712",
        models_dir=tmp_path / "models",
    )
    running.announce(stack)
    found = running.with_running_stack(
        load_settings(data_dir=tmp_path, triton_url="192.0.2.1:8001")
    )
    assert found.broker_url == stack.broker_url
    assert (found.ae_title, found.port) == ("GRADER", 4713)
    assert [destination.name for destination in found.destination_list] == ["PACS@192.0.2.10:104"]
    assert found.triton_url == "192.0.2.1:8001"
    assert found.models_dir == tmp_path / "models"
    with pytest.raises(ConfigurationError, match="is running"):
        running.require_not_running(stack)
    running.withdraw(stack)
    running.require_not_running(stack)


def test_an_ended_stack_is_not_found(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    settings = load_settings(data_dir=tmp_path)
    left_behind = {"pid": ended.pid, "broker_url": "redis://127.0.0.1:4711/0"}
    (tmp_path / "embedded.json").write_text(json.dumps(left_behind))
    assert running.with_running_stack(settings) == settings
    running.require_not_running(settings)
