"""Real senders, a real PACS: what SQL says is what the report in the PACS says."""

from __future__ import annotations

import io
import subprocess
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from tests.support.builders.synthetic_studies import copy_study
from tests.support.paths import SAMPLE_DATA
from tests.support.servers.dcmtk import dcmtk_program
from tests.support.servers.validators import dciodvfy, dsrdump
from tests.support.shipped_models import newest_description
from worker.grading.stages.report import codes

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.sr.coding import Code

    from tests.support.servers.validators import PixelMed
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
    assert row["status"] == "committed", row
    stored = [pydicom.dcmread(io.BytesIO(c)) for c in node.pacs.instances(study_uid)]
    (report,) = [ds for ds in stored if ds.Modality == "SR"]
    pictures = [ds for ds in stored if ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"]
    maps = [ds for ds in stored if ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.30"]
    assert len(pictures) >= 3
    assert len(maps) == 1
    assert report.SOPInstanceUID == row["sr_uid"]
    assert report.PatientID == row["patient_id"]
    description = newest_description("rating")
    assert row["caveat"] == description["intended_use"]
    assert any(row["caveat"] in str(element.value) for element in report.iterall())
    assert all(picture.ImageComments == row["caveat"] for picture in pictures)
    ratings = _values(report, codes.HIGHEST_RATING)
    assert ratings == [codes.RATINGS[row["rating"]].value]
    (probability,) = _values(report, codes.SEVERITY_PROBABILITY)
    assert probability == pytest.approx(row["severity_probability"], abs=1e-4)
    per_image = _values(report, codes.RATING)
    assert len(per_image) == 6
    assert max(per_image) == ratings[0]
    (message,) = [m.decode() for m in node.ris.messages if row["sr_uid"] in m.decode()]
    assert f"{codes.RATINGS[row['rating']].value}^" in message
    assert f"|{row['patient_id']}|" in message
    path = tmp_path / "report.dcm"
    report.save_as(path)
    assert dciodvfy(path) == []
    assert dsrdump(path) == []
    return path


@pytest.fixture(scope="module")
def sent(
    node: Node, synthetic_study: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Study UID of what each sender sent; all are on their way before one is waited for."""
    uids = {}

    def send(name: str, source: Path, sender: str, called_ae: str, port: int) -> None:
        folder = tmp_path_factory.mktemp(name) / "study"
        uids[name] = copy_study(source, folder)
        subprocess.run(
            [
                *(dcmtk_program(sender), "-aec", called_ae, "--scan-directories"),
                *("127.0.0.1", str(port), folder),
            ],
            check=True,
        )

    if SAMPLE_DATA.is_dir():
        real_study = SAMPLE_DATA / "study-brain-siemens"
        send("storescu", real_study, "storescu", "EPVSNODE", node.port)
    send("Orthanc", synthetic_study, "dcmsend", "DEMOPACS", node.pacs.dicom_port)
    send("dcmsend", synthetic_study, "dcmsend", "EPVSNODE", node.port)
    return uids


@pytest.mark.sample_data
def test_storescu_sends_the_real_study(
    node: Node, sent: dict[str, str], pixelmed: PixelMed, tmp_path: Path
) -> None:
    report = _check_results(node, sent["storescu"], tmp_path)
    assert pixelmed.errors(report) == []


@pytest.mark.parametrize("sender", ["dcmsend", "Orthanc"])
def test_a_synthetic_study_is_sent_by_dcmsend_and_forwarded_by_orthanc(
    node: Node, sent: dict[str, str], sender: str, tmp_path: Path
) -> None:
    """Orthanc has it from dcmsend, and sends it on by a rule of its own."""
    _check_results(node, sent[sender], tmp_path)
