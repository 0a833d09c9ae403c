"""Studies that must not be graded end as ``rejected``, and the PACS is told why; nothing breaks."""

from __future__ import annotations

import subprocess
import time
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made on import

from core.reasons import Reason
from db import queries
from db.session import unit_of_work
from tests.support.paths import SAMPLE_DATA
from tests.support.servers.dcmtk import dcmtk_program
from worker.grading.stages.report import codes
from worker.grading.stages.report.content_tree import is_named, walk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Node

pytestmark = pytest.mark.sample_data

REASONS = {
    "reject/pd-fse-axial-ge": {Reason.NOT_T2_WEIGHTED},
    "reject/t1-gre-sagittal-uih": {Reason.INVERSION_RECOVERY},
    # De-identification left it no diffusion attributes.
    "reject/dti-axial-toshiba": {Reason.ECHO_PLANAR},
    "reject/localizer-3plane-ge": {Reason.LOCALIZER},
    "reject/epi-mosaic-siemens": {Reason.MOSAIC},
    "reject/dual-echo-mag-phase-philips": {Reason.PHASE},
    "reject/phase-fieldmap-siemens": {Reason.PHASE},
    "reject/enhanced-mr-epi-siemens": {Reason.ECHO_PLANAR, Reason.PHASE},
    "malformed/d2n-geometry/failing-sliceorientation-001": {Reason.MIXED_ORIENTATION},
    # These are not T2-weighted or not MR at all, which comes before their broken geometry.
    "malformed/d2n-geometry/failing-slicecount-001": {Reason.INVERSION_RECOVERY},
    "malformed/d2n-geometry/hitachi-anatomical-001": {Reason.NOT_T2_WEIGHTED},
    "malformed/d2n-geometry/failing-gantrytilting-001": {Reason.NOT_MR},
    "malformed/d2n-geometry/failing-notavolume-001": {Reason.NOT_MR},
    "malformed/d2n-geometry/failing-sliceincrement-002": {Reason.NOT_MR},
}


def _send(node: Node, folder: Path) -> None:
    # Some of these files are refused one by one; what counts is how the study ends.
    subprocess.run(
        [dcmtk_program("dcmsend"), "-aec", "EPVSNODE", "--no-halt", "--scan-directories",
         "--no-illegal-proposal", "--decompress-lossless", "127.0.0.1", str(node.port), folder],
        check=False, capture_output=True,
    )  # fmt: skip


def _study_uids(folder: Path) -> set[str]:
    return {
        str(dcmread(path, stop_before_pixels=True, force=True).StudyInstanceUID)
        for path in folder.iterdir()
    }


def _check_report(node: Node, study_uid: str, reason: str) -> None:
    """The PACS asks to be told: one SR says why, and its delivery leaves the study as it is."""
    deadline = time.monotonic() + 60
    while not (stored := [dcmread(BytesIO(c)) for c in node.pacs.instances(study_uid)]):
        assert time.monotonic() < deadline, study_uid
        time.sleep(0.2)
    (report,) = stored
    (stated,) = [item for item in walk(report) if is_named(item, codes.NOT_GRADED)]
    assert stated.ConceptCodeSequence[0].CodeValue == codes.REASONS[Reason(reason)].value
    assert node.wait(study_uid)["status"] == "rejected"


def test_samples_are_rejected_for_the_right_reason(node: Node) -> None:
    for folder in REASONS:
        _send(node, SAMPLE_DATA / folder)
    for folder, allowed in REASONS.items():
        for study_uid in _study_uids(SAMPLE_DATA / folder):
            row = node.wait(study_uid)
            assert row["status"] == "rejected", (folder, row)
            assert row["reason"] in {str(reason) for reason in allowed}, (folder, row["reason"])
            with unit_of_work(node.engine) as session:
                verdicts = queries.show_study(session, study_uid)["revisions"][-1]["verdicts"]
            assert verdicts, folder
            _check_report(node, study_uid, row["reason"])


def test_malformed_files_leave_the_node_alive(node: Node) -> None:
    _send(node, SAMPLE_DATA / "malformed" / "pydicom-broken")
    _send(node, SAMPLE_DATA / "malformed" / "pydicom-charsets")
    _send(node, SAMPLE_DATA / "syntaxes" / "mosaic-7-transfer-syntaxes")
    ae = AE()
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", node.port, ae_title="EPVSNODE")
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    association.release()
    with unit_of_work(node.engine) as session:
        rows = queries.list_studies(session)
    assert rows
    for row in rows:
        end = node.wait(row["study_uid"])
        assert end["status"] in ("rejected", "committed"), end
    node.stack.supervise()
