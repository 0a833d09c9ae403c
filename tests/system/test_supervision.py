"""``epvs-node up`` keeps its processes running, whichever of them is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import psutil
import pytest
import redis

from core.settings import load_settings
from node.embedded.running import with_running_stack
from tests.support.builders.stand_in_models import describe, write_stand_ins
from tests.support.builders.synthetic_studies import copy_study
from tests.support.paths import ROOT
from tests.support.servers.receiver import wait_until
from tests.support.servers.up import Up, run_up

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("Triton", "Redis", "receiver", "housekeeper", "worker", "delivery")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    data_dir = folder / "data; of $HOME"
    with run_up(folder, data_dir, EPVS_DATA_DIR=str(data_dir)) as node:
        node.wait_until_ready()
        yield node


def _victim(up: Up, name: str) -> int:
    if name != "model process":
        return up.components()[name].pid
    return psutil.Process(up.components()["Triton"].pid).children(recursive=True)[-1].pid


@pytest.mark.parametrize(
    "names", [("receiver", "housekeeper", "Redis"), ("worker",), ("Triton",), ("model process",)]
)
def test_a_study_is_delivered_once_although_processes_are_killed(
    up: Up, synthetic_study: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    study_uid = copy_study(synthetic_study, tmp_path / "study")
    up.wait_until_all_run()
    up.send(tmp_path / "study")
    up.wait_for(study_uid, "processing")
    before = up.components()
    for name in names:
        os.kill(_victim(up, name), signal.SIGKILL)
    up.wait_for(study_uid, "delivered")
    assert up.n_reports(study_uid) == 1
    up.wait_until_all_run()
    after = up.components()
    restarted = {"Triton" if name == "model process" else name for name in names}
    for name in restarted:
        assert after[name].restarts == before[name].restarts + 1
        assert after[name].pid != before[name].pid
        end = "has lost a model process" if "model process" in names else "killed by SIGKILL"
        assert f"{name}: {end}; starts again" in up.output
        assert f"{name}: runs again" in up.output
    for name in set(NAMES) - restarted:
        assert after[name] == before[name]


def test_redis_has_its_data_again(up: Up) -> None:
    up.wait_until_all_run()
    url = with_running_stack(load_settings(data_dir=up.data_dir)).broker_url
    client = redis.Redis(unix_socket_path=unquote(url.partition("://")[2]))
    client.set("kept", "over a restart")
    os.kill(up.components()["Redis"].pid, signal.SIGKILL)
    wait_until(lambda: "waiting" in str(up.components()["Redis"]) or _responds(client), 60)
    wait_until(lambda: _responds(client), 60)
    assert client.get("kept") == b"over a restart"


def _responds(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_doctor_shows_the_processes_of_the_node(up: Up) -> None:
    up.wait_until_all_run()
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("EPVS_")}
    doctor = subprocess.run(
        [sys.executable, "-m", "node", "doctor"],
        cwd=ROOT,
        env={**inherited, "EPVS_DATA_DIR": str(up.data_dir), "EPVS_SPOOL_RESERVE_MB": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    for name in NAMES:
        assert f"process {name}: running since " in doctor.stdout
    assert "restarts: 1, killed by SIGKILL at " in doctor.stdout


def test_ctrl_c_during_a_restart_leaves_nothing_behind(up: Up) -> None:
    up.wait_until_all_run()
    prefix = (up.data_dir / "embedded/triton/shared-memory").read_text()
    assert list(Path("/dev/shm").glob(f"{prefix}*"))
    os.kill(up.components()["Triton"].pid, signal.SIGKILL)
    wait_until(lambda: up.components()["Triton"].state == "starting", 30)
    processes = up.processes()
    prefix_of_second = (up.data_dir / "embedded/triton/shared-memory").read_text()
    began = time.monotonic()
    assert up.end(signal.SIGINT) == 0, up.output
    assert time.monotonic() - began < 45
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))
    assert not list(Path("/dev/shm").glob(f"{prefix_of_second}*"))
    assert up.components() == {}
    assert not (up.data_dir / "embedded.json").exists()


def test_ctrl_c_finishes_the_study_in_hand_or_gives_it_back(
    synthetic_study: Path, tmp_path: Path
) -> None:
    """Its attempt is not charged, and it need not wait for the end of a lease."""
    study_uid = copy_study(synthetic_study, tmp_path / "study")
    with run_up(tmp_path, tmp_path / "data", EPVS_DATA_DIR=str(tmp_path / "data")) as node:
        node.wait_until_ready()
        node.send(tmp_path / "study")
        node.wait_for(study_uid, "processing")
        assert node.end(signal.SIGINT) == 0, node.output
        assert node.studies()[study_uid] in ("queued", "graded", "delivered")


def test_a_part_that_cannot_start_ends_the_node_with_its_reason(tmp_path: Path) -> None:
    models = write_stand_ins(tmp_path / "models")
    shutil.copy(models / "severity/1/model.onnx", models / "rating/1/model.onnx")
    describe(models, "rating")
    settings = {"EPVS_DATA_DIR": str(tmp_path / "data"), "EPVS_MODELS_DIR": str(models)}
    with run_up(tmp_path, tmp_path / "data", **settings) as node:
        assert node.process.wait(60) == 1
        output = " ".join(node.output.split())
        assert "Triton ended with code 1 while starting" in output
        assert "differ from those of config" in output
        assert "triton.log" in output
