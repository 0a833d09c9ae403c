"""The minimal Storage SCP of the demonstration stores exactly what it receives."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pydicom

from node.demonstration.pacs import AE_TITLE, FolderPacs
from node.sending import send
from tests.support.builders.series_files import t2_slices, write

if TYPE_CHECKING:
    from pathlib import Path


def test_folder_pacs_keeps_what_it_is_sent(tmp_path: Path) -> None:
    sent = t2_slices(3)
    folder = tmp_path / "series"
    write(folder, sent)
    pacs = FolderPacs.start(tmp_path / "pacs")
    try:
        assert send([folder], f"{AE_TITLE}@127.0.0.1:{pacs.dicom_port}") == 3
        kept = [pydicom.dcmread(io.BytesIO(c)) for c in pacs.instances(sent[0].StudyInstanceUID)]
    finally:
        pacs.stop()
    pixels = {dataset.SOPInstanceUID: dataset.PixelData for dataset in sent}
    assert {dataset.SOPInstanceUID: dataset.PixelData for dataset in kept} == pixels
