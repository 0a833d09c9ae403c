"""Other commands find a running embedded stack, and only a running one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from core.errors import ConfigurationError
from core.settings import load_settings
from node.embedded.running import (
    RunningStack,
    require_not_running,
    running_components,
    with_running_stack,
)
from node.embedded.supervision import ComponentState
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


STATE = ComponentState(
    name="worker",
    state="running",
    pid=4711,
    since="2026-11-29 05:00:00+00:00",
    restarts=1,
    last_exit="killed by SIGKILL",
    last_exit_at="2026-11-29 04:59:40+00:00",
    next_try="",
    log="/data/logs/worker.log",
)


def test_settings_come_from_the_running_stack_unless_given(tmp_path: Path) -> None:
    stack = load_settings(
        data_dir=tmp_path,
        ae_title="GRADER",
        port=4713,
        destinations="PACS@192.0.2.10:104",
        broker_url="redis+socket:///data/redis.sock",
        triton_url="127.0.0.1:4712",
        models_dir=tmp_path / "models",
    )
    announced = RunningStack(stack)
    announced.announce(stack, [STATE], own_broker=True)
    found = with_running_stack(load_settings(data_dir=tmp_path, triton_url="192.0.2.1:8001"))
    assert found.broker_url == stack.broker_url
    assert (found.ae_title, found.port) == ("GRADER", 4713)
    assert [destination.name for destination in found.destination_list] == ["PACS@192.0.2.10:104"]
    assert found.triton_url == "192.0.2.1:8001"
    assert found.models_dir == tmp_path / "models"
    assert running_components(stack) == [STATE]
    with pytest.raises(ConfigurationError, match="is running"):
        require_not_running(stack)
    with pytest.raises(ConfigurationError, match="is running"):
        RunningStack(stack)
    announced.withdraw()
    require_not_running(stack)
    assert running_components(stack) == []


def test_the_url_of_another_broker_is_not_repeated(tmp_path: Path) -> None:
    stack = load_settings(data_dir=tmp_path, broker_url="redis://:s3cret@192.0.2.1/0")
    announced = RunningStack(stack)
    announced.announce(stack, [], own_broker=False)
    assert "s3cret" not in (tmp_path / "embedded.json").read_text()
    default = load_settings(data_dir=tmp_path)
    assert with_running_stack(default).broker_url == default.broker_url
    announced.withdraw()


def test_a_stack_that_was_killed_is_not_found_although_another_process_has_its_id(
    tmp_path: Path,
) -> None:
    """As after a loss of power: soon after the start of a machine, ids are the same again."""
    settings = load_settings(data_dir=tmp_path)
    code = (
        "import os; from core.settings import load_settings; "
        "from node.embedded.running import RunningStack; "
        f"s = load_settings(data_dir={str(tmp_path)!r}); "
        "RunningStack(s).announce(s, [], own_broker=True); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    left_behind = tmp_path / "embedded.json"
    found = json.loads(left_behind.read_text())
    left_behind.write_text(json.dumps(found | {"pid": os.getpid()}))
    assert with_running_stack(settings) == settings
    require_not_running(settings)
    RunningStack(settings).withdraw()
