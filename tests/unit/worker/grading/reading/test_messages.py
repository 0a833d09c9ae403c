"""Messages of the process that reads."""

from __future__ import annotations

import os
import pickle
from datetime import timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from core.errors import Failed
from core.reasons import Reason
from core.results import SeriesVerdict
from core.studies import ClosedStudy
from tests.support.builders.series_files import stored_study, t2_slices
from worker.grading.reading.messages import pack, pack_failure, unpack
from worker.grading.reading.study import read_study
from worker.grading.records import Reading, Selection

if TYPE_CHECKING:
    from pathlib import Path


def test_a_reading_arrives_as_it_was(tmp_path: Path) -> None:
    slices = t2_slices(PatientName="Müller^Jörg=山田^太郎", TimezoneOffsetFromUTC="+0130")
    for ds in slices:
        ds.SpecificCharacterSet = "ISO_IR 192"
    reading = read_study(stored_study(tmp_path, slices))
    voxels, shape = reading.voxels, (20, 40, 32)
    assert voxels is not None
    without = type(reading)(reading.selection, reading.header)
    assert unpack(pack(without, shape)) == (without, shape)
    assert reading.header is not None
    assert reading.header.utc_offset == timezone(timedelta(hours=1, minutes=30))


def test_enumerations_arrive_where_python_pickles_them_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Python 3.11.2 does, which Debian 12 has."""
    monkeypatch.setattr(
        Reason, "__reduce_ex__", lambda reason, _: (getattr, (Reason, reason.name)), raising=False
    )
    verdict = SeriesVerdict("1.2", Reason.SELECTED, "", 20)
    reading = Reading(Selection((verdict,), None), None)
    assert unpack(pack(reading, ())) == (reading, ())


def test_a_failure_arrives_as_one() -> None:
    with pytest.raises(Failed, match="the file is gone") as failure:
        unpack(pack_failure(Failed("spool-unreadable", "the file is gone")))
    assert failure.value.code == "spool-unreadable"


class Hostile:
    """Unpickling it runs a command."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("false",)


@pytest.mark.parametrize(
    "message",
    [
        pickle.dumps(Hostile()),
        pickle.dumps(ClosedStudy("1", "r", 1, ())),
        pickle.dumps(eval),
        b"",
        b"no pickle",
    ],
)
def test_nothing_else_is_unpickled(message: bytes) -> None:
    with pytest.raises(Failed) as failure:
        unpack(message)
    assert failure.value.code == "reading-invalid"


@pytest.mark.parametrize("content", [5, (1, 2, 3, 4), ("x",), None])
def test_a_message_of_another_form_is_invalid(content: object) -> None:
    with pytest.raises(Failed) as failure:
        unpack(pickle.dumps(content))
    assert failure.value.code == "reading-invalid"
