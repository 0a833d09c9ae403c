"""The daily removal of leftovers: repeated soon when the database is out of reach."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from core.settings import load_settings
from db.session import create_engine
from worker.leftovers import Leftovers

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from sqlalchemy import Engine


def test_the_housekeeper_removes_leftovers_when_it_starts(
    database_engine: Engine, tmp_path: Path
) -> None:
    settings = load_settings(data_dir=tmp_path)
    settings.reports_dir.mkdir()
    old, new = (settings.reports_dir / f"{digit * 64}.dcm" for digit in "ab")
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    stop = threading.Event()
    thread = threading.Thread(target=Leftovers(settings, database_engine).run, args=(stop,))
    thread.start()
    while old.exists():
        assert thread.is_alive()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert new.exists()


def test_a_folder_or_database_that_fails_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(data_dir=tmp_path)
    settings.reports_dir.mkdir()
    path = settings.reports_dir / f"{'a' * 64}.dcm"
    path.touch()
    os.utime(path, (0, 0))
    leftovers = Leftovers(settings, create_engine("postgresql://epvs@127.0.0.1:1/epvs"))
    assert not leftovers.remove()
    assert path.exists()

    def fail(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("worker.leftovers.remove_leftovers", fail)
    assert leftovers.remove()
    assert "cannot be removed: Permission denied" in caplog.text
