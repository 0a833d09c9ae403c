"""Reading one of the node's reports as text, and refusing everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.builders.series_files import t2_slices, write
from tests.support.builders.sources import classic, inputs
from worker.commands.read_report import NotAReport, read_report

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sr(tmp_path: Path) -> Path:
    path = tmp_path / "sr.dcm"
    path.write_bytes(inputs(classic(tmp_path)).build().objects[-1].content)
    return path


def test_a_report_is_shown(sr: Path) -> None:
    assert "Okapi" in read_report(sr) or "CANARY" in read_report(sr)


def test_what_is_no_report_is_named_without_its_content(tmp_path: Path) -> None:
    with pytest.raises(NotAReport, match=r"^cannot be read as DICOM \(FileNotFoundError\)$"):
        read_report(tmp_path / "gone.dcm")
    write(tmp_path / "images", t2_slices(1))
    with pytest.raises(NotAReport, match=r"^is not a structured report$"):
        read_report(tmp_path / "images" / "001.dcm")
    write(tmp_path / "foreign", t2_slices(1, Modality="SR"))
    with pytest.raises(NotAReport, match=r"^is not a report of this node \(\w+\)$"):
        read_report(tmp_path / "foreign" / "001.dcm")
