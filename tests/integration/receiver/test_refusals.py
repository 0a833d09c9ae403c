"""Instances that cannot be stored get a status and leave no file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydicom import Dataset, dcmread
from pydicom import config as pydicom_config
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)
from pynetdicom import AllStoragePresentationContexts, _config

from receiver.status import Status
from tests.support.builders.mr_series import make_image
from tests.support.clients.scu import association, data_set_of, dcmtk, send_raw
from tests.support.paths import SAMPLE_DATA
from tests.support.servers.receiver import ReceiverProcess, run_receiver

if TYPE_CHECKING:
    from pathlib import Path


def encoded_image(**changes: Any) -> bytes:
    image = make_image()
    for keyword, value in changes.items():
        if value is None:
            delattr(image, keyword)
        else:
            image[keyword]._value = value  # without validation
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, image)
    return bytes(buffer.getvalue())


def encoded_directory() -> bytes:
    """A DICOMDIR's data set (PS3.3 annex F), with a record that holds the UIDs of an image."""
    record = make_image()
    record.DirectoryRecordType = "IMAGE"
    directory = Dataset()
    directory.FileSetID = "CD"
    directory.DirectoryRecordSequence = [record]
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, directory)
    return bytes(buffer.getvalue())


UID = "1.2.3.1.1"
CASES = {
    "a directory": (encoded_directory(), UID, Status.UID_MISSING),
    "instance differs": (encoded_image(), "1.2.3.1.2", Status.DATA_SET_MISMATCH),
    "class differs": (encoded_image(SOPClassUID=CTImageStorage), UID, Status.DATA_SET_MISMATCH),
    "no study": (encoded_image(StudyInstanceUID=None), UID, Status.UID_MISSING),
    "no series": (encoded_image(SeriesInstanceUID=""), UID, Status.UID_MISSING),
    "study as path": (encoded_image(StudyInstanceUID="../../etc/x"), UID, Status.UID_INVALID),
    "study too long": (encoded_image(StudyInstanceUID="1." + "2" * 63), UID, Status.UID_INVALID),
    "instance as path": (encoded_image(), "../../etc/x", Status.UID_INVALID),
    "instance absolute": (encoded_image(), "/tmp/x", Status.UID_INVALID),
    "instance too long": (encoded_image(), "1." + "2" * 79, Status.UID_INVALID),
    "instance with letters": (encoded_image(), "1.2.x", Status.UID_INVALID),
    "cut in the header": (encoded_image()[:60], UID, Status.HEADER_UNREADABLE),
    "noise": (b"\xff" * 4096, UID, Status.HEADER_UNREADABLE),
    "one byte": (b"\x08", UID, Status.HEADER_UNREADABLE),
}


@pytest.fixture
def no_uid_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the validation of UIDs in pynetdicom's SCU."""
    monkeypatch.setitem(_config.VALIDATORS, "UI", lambda _value: (True, ""))
    monkeypatch.setattr(pydicom_config.settings, "writing_validation_mode", pydicom_config.IGNORE)
    monkeypatch.setattr(pydicom_config.settings, "reading_validation_mode", pydicom_config.IGNORE)


@pytest.mark.usefixtures("no_uid_validation")
def test_every_wrong_instance_gets_its_status(receiver: ReceiverProcess) -> None:
    with association(receiver.port) as assoc:
        answers = {name: send_raw(assoc, data, uid) for name, (data, uid, _) in CASES.items()}
        sound = send_raw(assoc, encoded_image(), UID)

    assert answers == {name: status for name, (_, _, status) in CASES.items()}
    assert sound == Status.SUCCESS  # on the same association, after all of those
    assert len(receiver.instances()) == len(receiver.files()) == 1
    rows = receiver.wait_for_refusals("instance-refused", len(CASES))
    assert sum(row["times"] for row in rows) == len(CASES)


def test_an_instance_must_have_the_class_of_its_context(
    receiver: ReceiverProcess,
) -> None:
    with association(receiver.port) as assoc:
        status = send_raw(assoc, encoded_image(SOPClassUID=CTImageStorage), UID, CTImageStorage)

    assert status == Status.SOP_CLASS_NOT_SUPPORTED
    assert receiver.files() == set()


def test_command_elements_inside_a_data_set_are_stored_unchanged(
    receiver: ReceiverProcess,
) -> None:
    data = b"\0\0\0\1US\2\0\1\0" + encoded_image()
    with association(receiver.port) as assoc:
        assert send_raw(assoc, data, UID) == Status.SUCCESS

    (path,) = receiver.files()
    assert data_set_of(path) == data


@pytest.mark.sample_data
def test_every_malformed_file_ends_as_a_status(tmp_path: Path) -> None:
    paths = [path for path in sorted((SAMPLE_DATA / "malformed").rglob("*")) if path.is_file()]
    assert len(paths) == 57
    syntaxes = (
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    )
    known = {context.abstract_syntax for context in AllStoragePresentationContexts}
    answers = []
    with run_receiver(tmp_path, other_classes="accept") as receiver:
        for path in paths:
            sop_class, uid = identity(path)
            sop_class = sop_class if sop_class in known else MRImageStorage
            with association(receiver.port, [(sop_class, syntax) for syntax in syntaxes]) as assoc:
                for context in assoc.accepted_contexts:
                    data = data_set_of(path)
                    answers.append(send_raw(assoc, data, uid, sop_class, context.context_id))
        assert dcmtk("echoscu", receiver.port).returncode == 0
        stored = {row.sop_instance_uid for row in receiver.instances()}

    assert len(answers) == len(paths) * len(syntaxes)
    assert set(answers) <= {int(status) for status in Status} - {Status.PROCESSING_FAILURE}
    # Most of these are broken only in elements that the receiver does not read.
    assert len(stored) > 20


def identity(path: Path) -> tuple[str, str]:
    """SOP class and instance as a sender without checks would announce them."""
    try:
        header = dcmread(path, stop_before_pixels=True, force=True)
        return str(header.get("SOPClassUID", "")), str(header.get("SOPInstanceUID", "") or "1.2.3")
    except Exception:  # noqa: BLE001 - pydicom raises any error
        return "", "1.2.3"
