"""The worker's side of reading, with its real server process."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from core.errors import Failed
from core.reasons import Reason
from tests.support.builders.series_files import expected_volume, stored_study, t2_slices
from tests.support.builders.sources import without_images
from worker.grading.reading import Reader, read_study
from worker.grading.reading.limits import Limits
from worker.grading.reading.reader import check_ending
from worker.grading.reading.server import Ending

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


def test_it_gives_what_reading_in_this_process_gives(reader: Reader, tmp_path: Path) -> None:
    study = stored_study(tmp_path, t2_slices())
    here, there = read_study(study), reader.read_study(study)
    assert here.voxels is not None
    assert there.voxels is not None
    assert (there.voxels == here.voxels).all()
    assert (there.voxels == expected_volume(20)).all()
    assert (there.selection, there.header) == (here.selection, here.header)


def test_a_study_without_a_series_to_grade_has_a_header(reader: Reader, tmp_path: Path) -> None:
    reading = reader.read_study(without_images(tmp_path))
    assert reading.selection.reason is Reason.UNREADABLE
    assert reading.header is not None
    assert reading.header.patient_and_study.PatientID == "CANARY-17"


def test_a_missing_file_is_a_failure(reader: Reader, tmp_path: Path) -> None:
    study = stored_study(tmp_path, t2_slices())
    study.instances[3].path.unlink()
    with pytest.raises(Failed) as failure:
        reader.read_study(study)
    assert failure.value.code == "spool-unreadable"


def test_a_lost_server_process_costs_one_attempt(reader: Reader, tmp_path: Path) -> None:
    study = stored_study(tmp_path, t2_slices())
    reader.start()
    assert reader.pid is not None
    os.kill(reader.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(reader.pid)], timeout=5)
    reader.start()  # it has noticed, or notices while it asks
    assert reader.read_study(study).voxels is not None


def test_the_server_process_ends_with_its_worker(reader: Reader) -> None:
    connection = reader.start()
    assert reader.pid is not None
    server = psutil.Process(reader.pid)
    connection.close()
    server.wait(10)


@pytest.mark.parametrize(
    ("ending", "why"),
    [
        (Ending(-9, timed_out=True, cpu_s=0.1, peak_mb=50), "took too long"),
        (Ending(-9, timed_out=False, cpu_s=0.1, peak_mb=50), "ended from outside"),
    ],
)
def test_what_says_nothing_of_the_study_is_a_failure(ending: Ending, why: str) -> None:
    with pytest.raises(Failed, match=why) as failure:
        check_ending(ending, Limits(5, 60.0))
    assert failure.value.code == "reading-interrupted"
