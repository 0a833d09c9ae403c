"""Report files without a row are removed once no attempt can be writing them."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

from sqlalchemy import update

from db.models import ReportObjectRow
from db.retention.leftovers import remove_leftovers
from db.session import unit_of_work
from tests.support.builders import records as made

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


def _write(folder: Path, name: str, age_s: float) -> Path:
    path = folder / name
    path.write_bytes(b"report")
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_only_old_files_without_a_row_are_removed(database_engine: Engine, tmp_path: Path) -> None:
    with unit_of_work(database_engine) as session:
        made.grade_study(session, made.queue_study(session), made.PACS)
        known = hashlib.sha256(b"known").hexdigest()
        position = ReportObjectRow.position == 0
        session.execute(update(ReportObjectRow).where(position).values(sha256=known))
    kept = [
        _write(tmp_path, f"{known}.dcm", 1000),
        _write(tmp_path, f"{'a' * 64}.dcm", 10),  # its attempt may be about to store the result
        _write(tmp_path, f"{'b' * 64}.0123.part", 10),
        _write(tmp_path, "README", 1000),
    ]
    removed = [
        _write(tmp_path, f"{'c' * 64}.dcm", 1000),
        _write(tmp_path, f"{'d' * 64}.0123.part", 1000),
    ]
    assert remove_leftovers(database_engine, tmp_path, older_than_s=100) == len(removed)
    assert set(tmp_path.glob("[!e]*")) == set(kept)
    assert remove_leftovers(database_engine, tmp_path, older_than_s=100) == 0


def test_a_node_without_reports_has_no_leftovers(database_engine: Engine, tmp_path: Path) -> None:
    assert remove_leftovers(database_engine, tmp_path / "none", older_than_s=0) == 0
