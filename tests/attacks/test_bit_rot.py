"""A stored file whose content is not what was received, by decay or by hand, is never graded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import Failed
from tests.support.builders.series_files import stored_study, t2_slices, with_digests
from worker.grading.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.studies import ClosedStudy


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture
def study(tmp_path: Path) -> ClosedStudy:
    """A study with the digests that the receiver records."""
    return with_digests(stored_study(tmp_path, t2_slices()))


def test_a_study_is_read_as_it_was_received(reader: Reader, study: ClosedStudy) -> None:
    assert reader.read_study(study).voxels is not None


@pytest.mark.parametrize("at", [-1, 200], ids=["pixels", "header"])
def test_one_changed_bit_is_a_failure_with_its_own_code(
    at: int, reader: Reader, study: ClosedStudy
) -> None:
    changed = study.instances[7]
    content = bytearray(changed.path.read_bytes())
    content[at] ^= 1
    changed.path.write_bytes(content)
    with pytest.raises(Failed, match=changed.sop_instance_uid) as failure:
        reader.read_study(study)
    assert failure.value.code == "spool-changed"
