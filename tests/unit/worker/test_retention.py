from __future__ import annotations

import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

from core.errors import Unavailable
from core.settings import load_settings
from db.session import unit_of_work
from tests.support.builders.stored_studies import delivered_study
from worker import retention
from worker.retention import Retention, shorten_logs

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from sqlalchemy import Engine


def _retention(engine: Engine, folder: Path, **settings: Any) -> Retention:
    return Retention(load_settings(data_dir=folder, **settings), engine)


def test_a_pass_keeps_to_the_settings(database_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(database_engine) as session:
        _, images, reports = delivered_study(session, tmp_path)
    _retention(database_engine, tmp_path, keep_images_days=100_000, keep_reports_days=0).run_once()
    assert all(path.exists() for path in images + reports)
    _retention(database_engine, tmp_path, keep_images_days=1, keep_reports_days=0).run_once()
    assert not any(path.exists() for path in images)
    assert all(path.exists() for path in reports)


def test_images_go_before_their_time_when_the_disk_fills(
    database_engine: Engine, tmp_path: Path
) -> None:
    with unit_of_work(database_engine) as session:
        _, images, _ = delivered_study(session, tmp_path)
    free_mb = shutil.disk_usage(tmp_path).free // 2**20
    years = {"keep_images_days": 100_000.0, "keep_reports_days": 100_000.0}
    _retention(database_engine, tmp_path, prune_below_mb=1, **years).run_once()
    assert all(path.exists() for path in images)
    _retention(database_engine, tmp_path, prune_below_mb=free_mb + 10_000, **years).run_once()
    assert not any(path.exists() for path in images)


def test_what_killed_attempts_left_is_removed_after_a_day(
    database_engine: Engine, tmp_path: Path
) -> None:
    duty = _retention(database_engine, tmp_path)
    folder = tmp_path / "reports"
    folder.mkdir()
    old, new, later = (folder / f"{digit * 64}.dcm" for digit in "abc")
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    duty.run_once()
    assert (old.exists(), new.exists()) == (False, True)
    later.touch()
    os.utime(later, (0, 0))
    duty.run_once()
    assert later.exists()  # the folder is listed once a day


def test_what_fails_ends_neither_the_thread_nor_the_housekeeper(
    database_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, passes = threading.Event(), []

    def fail(*_: object, **__: object) -> None:
        passes.append(1)
        if len(passes) == 3:
            stop.set()
        raise Unavailable("database", "down") if len(passes) == 1 else ValueError

    monkeypatch.setattr(retention, "prune", fail)
    _retention(database_engine, tmp_path, prune_interval_s=0.001).run(stop)
    assert len(passes) == 3


def test_a_long_log_file_is_emptied_and_its_text_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    with path.open("a") as writer:  # stays open, as in the process that writes it
        writer.write("x" * 100)
        writer.flush()
        shorten_logs(tmp_path, 0)
        shorten_logs(tmp_path, 100)
        assert path.stat().st_size == 100
        shorten_logs(tmp_path, 99)
        writer.write("after\n")
    assert path.read_text() == "after\n"
    assert (tmp_path / "worker.log.1").read_text() == "x" * 100
    shorten_logs(tmp_path / "missing", 1)
