"""Report files contain the exact bytes of the objects, or nothing remains of them."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from core.errors import Unavailable
from core.results import ObjectKind, Report
from tests.support.builders.made_study import report_object
from tests.support.builders.records import IDENTITY
from worker.grading.report_files import write_report_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def report() -> Report:
    kinds = (ObjectKind.SECONDARY_CAPTURE, ObjectKind.STRUCTURED_REPORT)
    objects = tuple(report_object(kind, f"2.25.{number}") for number, kind in enumerate(kinds))
    return Report(objects, "Rating 2", IDENTITY)


def test_each_object_is_a_file_named_by_its_digest(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    paths = write_report_files(report, folder)
    for path, item in zip(paths, report.objects, strict=True):
        assert path.read_bytes() == item.content
        assert path.stem == hashlib.sha256(item.content).hexdigest()
    assert sorted(folder.iterdir()) == sorted(paths)


def test_the_same_report_may_be_written_again(report: Report, tmp_path: Path) -> None:
    assert write_report_files(report, tmp_path) == write_report_files(report, tmp_path)


def test_workers_with_the_same_process_id_may_write_the_same_report(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On several hosts, or in containers, two workers may have one process id."""
    fsync = os.fsync
    others: list[Path | None] = []

    def overlapping(descriptor: int) -> None:
        fsync(descriptor)
        if not others:  # the other worker writes everything before this file gets its name
            others.append(None)
            others.extend(write_report_files(report, tmp_path))

    monkeypatch.setattr("os.fsync", overlapping)
    assert list(write_report_files(report, tmp_path)) == others[1:]
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_is_unavailable_and_leaves_no_partial_file(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uuid4()
    monkeypatch.setattr("worker.grading.report_files.uuid4", lambda: name)
    digest = hashlib.sha256(report.objects[-1].content).hexdigest()
    # Writing there raises ENOSPC.
    (tmp_path / f"{digest}.{name.hex}.part").symlink_to("/dev/full")
    with pytest.raises(Unavailable) as caught:
        write_report_files(report, tmp_path)
    assert caught.value.service == "disk"
    assert not list(tmp_path.glob("*.part"))
