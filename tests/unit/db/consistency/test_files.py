"""Rows and files: what is missing, damaged, left over or half written is found."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from core.settings import Settings, load_settings
from db.consistency.files import check_files
from db.consistency.verdict import Invariant, Verdict
from db.receiving.intake import record_instances
from db.retention.removals import decide_images, decide_report, remove_listed
from db.session import unit_of_work
from tests.support.builders.records import STUDY, after, instance
from tests.support.builders.stored_studies import delivered_study

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

N = 40
"""Files: several shards, some of them with more than one."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path)


@pytest.fixture
def files(database_engine: Engine, settings: Settings) -> list[Path]:
    """Stored files with their rows, the last of them in quarantine."""
    contents = [f"image {number}".encode() for number in range(N)]
    paths = [write(settings.spool_dir, content) for content in contents]
    with unit_of_work(database_engine) as session:
        record_instances(
            session,
            [
                instance(
                    number,
                    path=path,
                    sha256=path.stem,
                    size_bytes=len(content),
                    patient_id="CANARY-8" if number == N - 1 else "CANARY-7",
                )
                for number, (path, content) in enumerate(zip(paths, contents, strict=True))
            ],
        )
    return paths


def write(folder: Path, content: bytes, *, age_s: float = 0.0, sharded: bool = True) -> Path:
    sha256 = hashlib.sha256(content).hexdigest()
    path = (folder / sha256[:2] if sharded else folder) / f"{sha256}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    make_old(path, age_s)
    return path


def make_old(path: Path, age_s: float) -> None:
    then = time.time() - age_s
    os.utime(path, (then, then))


def check(
    engine: Engine, settings: Settings, *, in_flight_s: float = 0.0, hashed: int | None = None
) -> dict[Invariant, Verdict]:
    found = check_files(engine, settings, in_flight_s=in_flight_s, hashed=hashed)
    return {verdict.invariant: verdict for verdict in found}


def test_files_and_rows_that_agree(
    database_engine: Engine, settings: Settings, files: list[Path]
) -> None:
    found = check(database_engine, settings)
    assert all(verdict.holds for verdict in found.values())
    assert found[Invariant.STORED_FILES].checked == len(files)
    assert found[Invariant.STORED_FILES].note == f"{N} of them were read"


def test_missing_short_and_changed_files_are_named(
    database_engine: Engine, settings: Settings, files: list[Path]
) -> None:
    files[0].unlink()
    files[1].write_bytes(b"im")
    files[-1].write_bytes(files[-1].read_bytes()[::-1])
    verdict = check(database_engine, settings)[Invariant.STORED_FILES]
    # The short one is also one whose content changed.
    assert verdict.violations == 4
    named = " ".join(verdict.examples)
    assert f"{files[0].name}: No such file" in named
    assert f"{files[1].name} has 2 bytes" in named
    assert f"content of file {files[-1].name} changed" in named
    assert "CANARY" not in named
    assert check(database_engine, settings, hashed=0)[Invariant.STORED_FILES].violations == 2


def test_only_files_older_than_what_can_be_in_progress_are_orphans(
    database_engine: Engine, settings: Settings, files: list[Path]
) -> None:
    del files
    old = write(settings.spool_dir, b"left by a kill", age_s=100)
    report = write(settings.reports_dir, b"report", age_s=100, sharded=False)
    write(settings.spool_dir, b"being recorded", age_s=10)
    verdict = check(database_engine, settings, in_flight_s=60)[Invariant.ORPHAN_FILES]
    assert verdict.violations == 2
    assert set(verdict.examples) == {
        f"spool/{old.parent.name}/{old.name}",
        f"reports/{report.name}",
    }


def test_only_half_written_files_that_nobody_writes_are_left_over(
    database_engine: Engine, settings: Settings
) -> None:
    for name, age_s in (("spool/tmp/0/a-1", 100), ("spool/tmp/0/a-2", 10), ("reports/b.part", 100)):
        path = settings.data_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        make_old(path, age_s)
    verdict = check(database_engine, settings, in_flight_s=60)[Invariant.TEMPORARY_FILES]
    assert set(verdict.examples) == {"spool/tmp/0/a-1", "reports/b.part"}


def test_removed_files_are_not_missing_and_listed_ones_are_no_orphans(
    database_engine: Engine, settings: Settings, tmp_path: Path
) -> None:
    """What retention removes, before and after; a file that it forgot is an orphan."""
    cutoff, now = after(9 * 86400), after(10 * 86400)
    with unit_of_work(database_engine) as session:
        revision_id, images, reports = delivered_study(session, tmp_path)
    with unit_of_work(database_engine) as session:
        assert decide_images(session, STUDY, cutoff=cutoff, now=now, why="age").files
        assert decide_report(session, revision_id, STUDY, cutoff=cutoff, now=now).files
    assert all(verdict.holds for verdict in check(database_engine, settings).values())
    left = images[0].read_bytes()
    remove_listed(database_engine, limit=1000)
    found = check(database_engine, settings)
    assert all(verdict.holds for verdict in found.values())
    assert found[Invariant.STORED_FILES].checked == 0
    assert not any(path.exists() for path in images + reports)
    images[0].write_bytes(left)
    assert check(database_engine, settings)[Invariant.ORPHAN_FILES].violations == 1


def test_a_node_without_folders_has_nothing_to_compare(
    database_engine: Engine, settings: Settings
) -> None:
    assert all(verdict.checked == 0 for verdict in check(database_engine, settings).values())
