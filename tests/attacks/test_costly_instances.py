"""Small valid instances that ask a parser or decoder for hours or gigabytes (a denial of service).

Each ends as a reason code, within bounds, and the next study is read as if nothing had been.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from core.reasons import Reason
from core.studies import ClosedStudy, SpooledInstance
from tests.support.builders import costly_instances as costly
from tests.support.builders.series_files import STUDY_UID, stored_study, t2_slices
from worker.grading.errors import NotGradable
from worker.grading.reading import Reader
from worker.grading.reading.limits import Limits
from worker.grading.reading.reader import check_ending
from worker.grading.reading.server import Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from worker.grading.records import Reading

MOST_CPU_S, MOST_MB = 10, 700


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    reader = Reader()
    reader.start()
    yield reader
    reader.close()


def received(folder: Path) -> ClosedStudy:
    """A study of all files of a folder, as the receiver would have recorded it."""
    return ClosedStudy(
        STUDY_UID,
        "revision-1",
        1,
        tuple(
            SpooledInstance(path, f"2.25.2.{n}", "1.2.840.10008.5.1.4.1.1.4", "2.25.2")
            for n, path in enumerate(sorted(folder.iterdir()), start=1)
        ),
    )


def read(
    reader: Reader, study: ClosedStudy, caplog: pytest.LogCaptureFixture
) -> Reading | NotGradable:
    """Read a study; hold processor time and memory against the bounds."""
    caplog.set_level(logging.INFO, "worker.grading.reading.reader")
    result: Reading | NotGradable
    try:
        result = reader.read_study(study)
    except NotGradable as refusal:
        result = refusal
    used = re.search(r"cpu_s=([\d.]+) peak_mb=(\d+)", caplog.records[-1].getMessage())
    assert used is not None
    assert float(used[1]) < MOST_CPU_S
    assert int(used[2]) < MOST_MB
    return result


@pytest.mark.parametrize(
    ("code_stream", "syntax"),
    [
        (costly.jpeg_lossless, JPEGLosslessSV1),
        (costly.jpeg_2000, JPEG2000Lossless),
        (costly.jpeg_ls, JPEGLSLossless),
    ],
)
def test_a_code_stream_larger_than_its_header_is_not_decoded(
    code_stream: Callable[[], bytes],
    syntax: str,
    reader: Reader,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    costly.write_series(tmp_path / "series", code_stream(), syntax)
    reading = read(reader, received(tmp_path / "series"), caplog)
    assert not isinstance(reading, NotGradable)
    assert reading.refusal is not None
    reason, detail = reading.refusal
    assert reason is Reason.UNDECODABLE_PIXELS
    assert "code stream of 16000 × 16000 × 1, header says 64 × 64 × 1" in detail


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda path: costly.write_deflated(path, 2**31), "inflate to more than"),
        (lambda path: costly.write_deflated(path, 2**27), "inflate to more than"),
        (lambda path: costly.write_many_items(path, 250_000), "more than 100000 elements"),
        (lambda path: costly.write_many_items(path, 50_000), "50000 frames"),
    ],
    ids=["2 GiB of zeros", "128 MiB of zeros", "250,000 items", "50,000 frames"],
)
def test_an_instance_that_unfolds_is_an_unreadable_header(
    write: Callable[[Path], None],
    problem: str,
    reader: Reader,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(tmp_path / "study" / "one.dcm")
    reading = read(reader, received(tmp_path / "study"), caplog)
    assert not isinstance(reading, NotGradable)
    assert reading.selection.reason is Reason.UNREADABLE
    assert problem in reading.selection.detail


def test_many_such_instances_meet_the_limit_of_processor_time(
    reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is within every bound of one instance."""
    costly.write_many_items(tmp_path / "study" / "00.dcm", 90_000)
    content = (tmp_path / "study" / "00.dcm").read_bytes()
    for n in range(1, 40):
        (tmp_path / "study" / f"{n:02}.dcm").write_bytes(content)
    refusal = read(reader, received(tmp_path / "study"), caplog)
    assert isinstance(refusal, NotGradable)
    assert refusal.reason is Reason.READING_LIMIT
    assert "s of processor time" in refusal.detail
    ordinary = read(reader, stored_study(tmp_path / "next", t2_slices()), caplog)
    assert not isinstance(ordinary, NotGradable)
    assert ordinary.voxels is not None


def test_memory_is_limited(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "of_study", lambda _study: Limits(10, 60.0, memory_mb=0))
    with pytest.raises(NotGradable, match=r"reading-limit: .* more than 0 MiB"):
        reader.read_study(stored_study(tmp_path, t2_slices()))


def test_a_decoder_that_crashes_is_a_finding_about_the_study() -> None:
    with pytest.raises(NotGradable, match=r"reading-limit: .* ended in SIGSEGV"):
        check_ending(Ending(-11, timed_out=False, cpu_s=0.1, peak_mb=80), Limits(5, 60.0))
