"""Real senders, a real PACS: what SQL says is what the report in the PACS says."""

from __future__ import annotations

import io
import subprocess
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from core.version import CAVEAT
from tests.paths import SAMPLE_DATA
from tests.servers.validators import dciodvfy, dsrdump
from tests.system.studies import copy_study
from worker.stages.report import codes

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.sr.coding import Code

    from tests.servers.validators import PixelMed
    from tests.system.conftest import Node


def _values(dataset: pydicom.Dataset, name: Code) -> list[Any]:
    """Every value of the SR's content items with this concept name, in document order."""
    found: list[Any] = []
    for item in dataset.get("ContentSequence", []):
        names = item.get("ConceptNameCodeSequence", [])
        if names and names[0].CodeValue == name.value:
            if item.ValueType == "CODE":
                found.append(item.ConceptCodeSequence[0].CodeValue)
            elif item.ValueType == "NUM":
                found.append(float(item.MeasuredValueSequence[0].NumericValue))
        found += _values(item, name)
    return found


def _check_results(node: Node, study_uid: str, tmp_path: Path) -> Path:
    """Compare what the PACS has with what SQL says; return the report as a file."""
    row = node.wait(study_uid)
    assert row["status"] == "delivered", row
    stored = [pydicom.dcmread(io.BytesIO(c)) for c in node.pacs.instances(study_uid)]
    (report,) = [ds for ds in stored if ds.Modality == "SR"]
    pictures = [ds for ds in stored if ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"]
    maps = [ds for ds in stored if ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.30"]
    assert len(pictures) >= 3
    assert len(maps) == 1
    assert report.SOPInstanceUID == row["sr_uid"]
    assert report.PatientID == row["patient_id"]
    assert any(CAVEAT in str(element.value) for element in report.iterall())
    ratings = _values(report, codes.HIGHEST_RATING)
    assert ratings == [codes.RATINGS[row["rating"]].value]
    (probability,) = _values(report, codes.SEVERITY_PROBABILITY)
    assert probability == pytest.approx(row["severity_probability"], abs=1e-4)
    per_image = _values(report, codes.RATING)
    assert len(per_image) == 6
    assert max(per_image) == ratings[0]
    path = tmp_path / "report.dcm"
    report.save_as(path)
    assert dciodvfy(path) == []
    assert dsrdump(path) == []
    return path


@pytest.mark.sample_data
def test_storescu_sends_the_real_study(node: Node, pixelmed: PixelMed, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    study_uid = copy_study(SAMPLE_DATA / "study-brain-siemens", folder)
    subprocess.run(
        ["storescu", "-aec", "EPVSNODE", "--scan-directories", "127.0.0.1", str(node.port), folder],
        check=True,
    )
    report = _check_results(node, study_uid, tmp_path)
    assert pixelmed.errors(report) == []


def test_dcmsend_sends_a_synthetic_study(node: Node, synthetic_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    study_uid = copy_study(synthetic_study, folder)
    subprocess.run(
        ["dcmsend", "-aec", "EPVSNODE", "--scan-directories", "127.0.0.1", str(node.port), folder],
        check=True,
    )
    _check_results(node, study_uid, tmp_path)


def test_orthanc_forwards_by_its_own_rule(
    node: Node, synthetic_study: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    study_uid = copy_study(synthetic_study, folder)
    subprocess.run(
        ["dcmsend", "-aec", "DEMOPACS", "--scan-directories", "127.0.0.1",
         str(node.pacs.dicom_port), folder],
        check=True,
    )  # fmt: skip
    _check_results(node, study_uid, tmp_path)
