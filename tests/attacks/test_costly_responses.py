"""A destination whose responses would inflate without limit in the worker (denial of service)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom import AE, evt

from core import commitment
from core.destinations import DicomDestination
from core.results import ObjectKind
from tests.support.builders.made_study import report_object, stored_object
from tests.support.servers.ports import free_port
from worker.delivery.dicom_scu import STUDY_ROOT_FIND, DicomScu
from worker.delivery.statuses import Response

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from db.delivery.claims import StoredObject


@pytest.fixture
def scu() -> Iterator[DicomScu]:
    """Client of a destination that speaks deflated data sets only."""
    ae = AE("PACS")
    for uid in (STUDY_ROOT_FIND, commitment.SOP_CLASS_UID):
        ae.add_supported_context(uid, DeflatedExplicitVRLittleEndian)
    port = free_port()
    server = ae.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[
            (evt.EVT_C_FIND, lambda _event: iter(())),
            (evt.EVT_N_ACTION, lambda _event: (0x0000, None)),
        ],
    )
    assert server is not None
    destination = DicomDestination("PACS", "127.0.0.1", port)
    yield DicomScu(destination, calling_ae="EPVSNODE", timeout_s=3.0)
    server.shutdown()


@pytest.fixture
def sr(tmp_path: Path) -> StoredObject:
    return stored_object(report_object(ObjectKind.STRUCTURED_REPORT, "2.25.2"), tmp_path)


def test_responses_are_never_deflated(scu: DicomScu, sr: StoredObject) -> None:
    assert scu.find([sr]) == set()
    result = scu.request_commitment([sr], "2.25.3", on_report=lambda _report: 0)
    assert (result.response, result.status) == (Response.REFUSED, None)
